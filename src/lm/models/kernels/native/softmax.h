/* −log softmax(z)[target] of rows of logits, and its gradient in their place. */

typedef struct {
    long rows, columns, threads;
    OPERAND *logits;          /* [rows, columns]; with shares, ∂objective/∂logits afterwards */
    const REAL *bias;         /* [columns] or null */
    const int64_t *targets;   /* [rows] */
    const REAL *share;        /* [rows]: the objective is Σ share · nll; null: no gradient */
    REAL *nll;                /* [rows] */
    REAL *scratch;            /* [threads, 2, columns] */
    REAL *d_bias;             /* [threads, columns]: added to; or null */
} softmax_args;

/* `count` rows from `row` on, side by side: they share the reading of the bias, and one row's
 * arithmetic fills the gaps of the other's. */
INLINE void softmax_rows(const softmax_args *s, long row, const long count) {
    const long V = s->columns;
    OPERAND *const z = s->logits + row * V;
    REAL *const e = s->scratch + thread() * 2 * V;
    REAL *const d_bias = s->d_bias ? s->d_bias + thread() * V : 0;
    vec largest[2] = {all(-(REAL)INFINITY), all(-(REAL)INFINITY)};
    REAL peak[2], wanted[2], scale[2];
    double total[2] = {0, 0};
    for (long k = 0; k < V; k += LANES) {
        const long n = at_most(V - k, LANES);
        const vec bias = s->bias ? load(s->bias + k, n) : (vec){};
        for (long r = 0; r < count; r++) {
            vec v = load_operand(z + r * V + k, n) + bias;
            if (n < LANES) v = blend(first(n), v, all(-(REAL)INFINITY));
            largest[r] = blend((mask)(v > largest[r]), v, largest[r]);
        }
    }
    for (long r = 0; r < count; r++) {
        const long target = s->targets[row + r];
        peak[r] = largest[r][0];
        for (long l = 1; l < LANES; l++) peak[r] = largest[r][l] > peak[r] ? largest[r][l] : peak[r];
        wanted[r] = load_operand(z + r * V + target, 1)[0] + (s->bias ? s->bias[target] : 0);
    }
    /* In blocks, so that the rounding of a large vocabulary does not add up. */
    for (long begin = 0; begin < V; begin += 256 * LANES) {
        const long end = at_most(begin + 256 * LANES, V);
        vec sum[2] = {};
        for (long k = begin; k < end; k += LANES) {
            const long n = at_most(V - k, LANES);
            const vec bias = s->bias ? load(s->bias + k, n) : (vec){};
            for (long r = 0; r < count; r++) {
                vec v = exp_up_to_largest(load_operand(z + r * V + k, n) + bias - peak[r]);
                if (n < LANES) v = blend(first(n), v, (vec){});
                sum[r] += v;
                if (s->share) store(e + r * V + k, v, n);
            }
        }
        for (long r = 0; r < count; r++)
            for (long l = 0; l < LANES; l++) total[r] += sum[r][l];
    }
    for (long r = 0; r < count; r++) {
        s->nll[row + r] = (REAL)((double)peak[r] - (double)wanted[r] + log(total[r]));
        if (!s->share) continue;
        /* ∂nll/∂z = p − onehot(target) */
        e[r * V + s->targets[row + r]] -= (REAL)total[r];
        scale[r] = (REAL)(s->share[row + r] / total[r]);
    }
    for (long k = 0; s->share && k < V; k += LANES) {
        const long n = at_most(V - k, LANES);
        vec both = {};
        for (long r = 0; r < count; r++) {
            const vec d = load(e + r * V + k, n) * scale[r];
            store_operand(z + r * V + k, d, n);
            both += d;
        }
        if (d_bias) store(d_bias + k, load(d_bias + k, n) + both, n);
    }
}

/* Per thread: a range of the rows. */
void softmax(const softmax_args *s) {
    PARALLEL(s->threads) {
        const range mine = share_of(s->rows);
        long row = mine.begin;
        for (; row + 1 < mine.end; row += 2) softmax_rows(s, row, 2);
        if (row < mine.end) softmax_rows(s, row, 1);
    }
}
