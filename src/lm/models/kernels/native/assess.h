/* What rows of logits say of their targets: −log softmax(z)[target], the entropy of softmax(z), and
 * how many of its words are more probable than the target. */

typedef struct {
    long rows, columns, threads;
    const OPERAND *logits;    /* [rows, columns] */
    const REAL *bias;         /* [columns] or null */
    const int64_t *targets;   /* [rows] */
    REAL *nll;                /* [rows] */
    REAL *entropy;            /* [rows], in nats */
    int64_t *above;           /* [rows] */
} assess_args;

/* With v = z − max z: H = log Σ e^v − Σ e^v v / Σ e^v. */
INLINE void assess_row(const assess_args *s, long row) {
    const long V = s->columns, target = s->targets[row];
    const OPERAND *const z = s->logits + row * V;
    const REAL wanted = load_operand(z + target, 1)[0] + (s->bias ? s->bias[target] : 0);
    vec largest = all(-(REAL)INFINITY);
    int64_t above = 0;
    double total = 0, weighted = 0;
    /* In blocks, so that neither counts nor the rounding of a large vocabulary add up. */
    for (long begin = 0; begin < V; begin += 256 * LANES) {
        const long end = at_most(begin + 256 * LANES, V);
        mask count = {};
        for (long k = begin; k < end; k += LANES) {
            const long n = at_most(V - k, LANES);
            vec v = load_operand(z + k, n) + (s->bias ? load(s->bias + k, n) : (vec){});
            if (n < LANES) v = blend(first(n), v, all(-(REAL)INFINITY));
            largest = blend((mask)(v > largest), v, largest);
            count -= (mask)(v > wanted);
        }
        for (long l = 0; l < LANES; l++) above += count[l];
    }
    REAL peak = largest[0];
    for (long l = 1; l < LANES; l++) peak = largest[l] > peak ? largest[l] : peak;
    for (long begin = 0; begin < V; begin += 256 * LANES) {
        const long end = at_most(begin + 256 * LANES, V);
        vec sum = {}, product = {};
        for (long k = begin; k < end; k += LANES) {
            const long n = at_most(V - k, LANES);
            const vec bias = s->bias ? load(s->bias + k, n) : (vec){};
            vec v = load_operand(z + k, n) + bias - peak;
            v = blend((mask)(v < -LARGEST), all(-LARGEST), v); /* so that e v is no 0 · ∞ */
            vec e = exponential(v);
            if (n < LANES) e = blend(first(n), e, (vec){});
            sum += e;
            product += e * v;
        }
        for (long l = 0; l < LANES; l++) total += sum[l], weighted += product[l];
    }
    s->nll[row] = (REAL)((double)peak - (double)wanted + log(total));
    s->entropy[row] = (REAL)(log(total) - weighted / total);
    s->above[row] = above;
}

/* Per thread: a range of the rows. */
void assess(const assess_args *s) {
    PARALLEL(s->threads) {
        const range mine = share_of(s->rows);
        for (long row = mine.begin; row < mine.end; row++) assess_row(s, row);
    }
}
