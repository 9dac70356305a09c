/* The softmax loss with its products, without logits that are rounded, stored and read again.
 *
 * With the own word's logit as the shift, e_v = exp(z_v − z_own): the normaliser is Z = Σ_v e_v and the
 * loss log Z. exponentials() gives e and Z in the pass that multiplies z = W x + b. The gradient
 * share (e / Z − onehot) is not formed either: share / Z goes to the smaller operands of the products
 * with e, and own_words() does what the onehot stands for.
 *
 * A thread takes a block of panels of 4 groups of words, and a part of the rows, at a time. Blocks
 * begin at the same words whatever the number of threads, so that the sums do not depend on it.
 */

typedef struct {
    long rows, columns, inner;  /* N, V, F */
    long threads, row_parts;
    const OPERAND *x;           /* [N, F] */
    const REAL *w;              /* [V, F], rounded to OPERAND as it is packed */
    const REAL *bias;           /* [V] or null */
    const int64_t *targets;     /* [N]: the own words */
    REAL *shift;                /* [N]: their logits */
    OPERAND *e;                 /* [N, V] */
    REAL *totals;               /* [N]: Z; infinite where an exponential leaves the range */
    REAL *parts;                /* [blocks, N, LANES] */
    OPERAND *packed;            /* [threads, 4 · group_size(F)] */
} exponentials_args;

INLINE REAL own_logit(const exponentials_args *s, long row) {
    const long own = s->targets[row];
    vec sum = {};
    for (long k = 0; k < s->inner; k += LANES) {
        const long n = at_most(s->inner - k, LANES);
        sum += load_operand(s->x + row * s->inner + k, n)
               * as_operand(load(s->w + own * s->inner + k, n));
    }
    REAL logit = s->bias ? s->bias[own] : 0;
    for (long l = 0; l < LANES; l++) logit += sum[l];
    return logit;
}

static void exponentials_panel(
    const exponentials_args *s, const OPERAND *panel, long group, range rows, vec *parts, int add
) {
    const long width = at_most(groups_of(s->columns) - group, 4);
    vec bias[4];
    for (long g = 0; g < width; g++) {
        const long column = (group + g) * LANES, n = at_most(s->columns - column, LANES);
        bias[g] = s->bias ? load(s->bias + column, n) : (vec){};
        if (n < LANES) bias[g] = blend(first(n), bias[g], all(-(REAL)INFINITY));
    }
    for (long i = rows.begin, height; i < rows.end; i += height) {
        vec z[ROWS][4];
        height = rows_at(i, rows.end);
        multiply(height, width, s->x + i * s->inner, s->inner, PAIR,
                 panel, group_size(s->inner), s->inner, z);
        for (long r = 0; r < height; r++) {
            vec sum = add ? parts[i + r] : (vec){};
            for (long g = 0; g < width; g++) {
                const long column = (group + g) * LANES, n = at_most(s->columns - column, LANES);
                const vec e = exponential_or_infinite(z[r][g] + bias[g] - s->shift[i + r]);
                sum += e;
                store_operand(s->e + (i + r) * s->columns + column, e, n);
            }
            parts[i + r] = sum;
        }
    }
}

void exponentials(const exponentials_args *s) {
    const long groups = groups_of(s->columns), size = group_size(s->inner);
    const long blocks = (groups + BLOCK_GROUPS - 1) / BLOCK_GROUPS, items = blocks * s->row_parts;
    barrier_t barrier = {0, 0};
    PARALLEL(s->threads) {
        const range mine = share_of(items), own = share_of(s->rows);
        for (long i = own.begin; i < own.end; i++) s->shift[i] = own_logit(s, i);
        wait_for_all(&barrier);
        OPERAND *packed = s->packed + thread() * 4 * size;
        for (long item = mine.begin; item < mine.end; item++) {
            const long block = item / s->row_parts, part = item % s->row_parts;
            const range rows = {s->rows * part / s->row_parts, s->rows * (part + 1) / s->row_parts};
            const long first = block * BLOCK_GROUPS, end = at_most(first + BLOCK_GROUPS, groups);
            for (long group = first; group < end; group += 4) {
                for (long g = group; g < at_most(group + 4, end); g++)
                    pack_rows(packed + (g - group) * size, s->w, 1, g * LANES * s->inner, s->inner,
                              s->inner, at_most(s->columns - g * LANES, LANES));
                exponentials_panel(s, packed, group, rows, (vec *)s->parts + block * s->rows,
                                         group > first);
            }
        }
        wait_for_all(&barrier);
        for (long i = own.begin; i < own.end; i++) {
            double total = 0;
            for (long block = 0; block < blocks; block += 16) { /* so that rounding does not add up */
                vec sum = {};
                for (long b = block; b < at_most(block + 16, blocks); b++)
                    sum += ((vec *)s->parts)[b * s->rows + i];
                for (long l = 0; l < LANES; l++) total += sum[l];
            }
            s->totals[i] = (REAL)total;
        }
    }
}

typedef struct {
    long rows, inner, threads;
    const OPERAND *x;         /* [N, F] */
    const REAL *w;            /* [V, F] */
    const int64_t *targets;   /* [N] */
    const REAL *share;        /* [N] */
    const REAL *factors;      /* [N]: share / Z */
    REAL *d_x;                /* [N, F]: e W before, the gradient afterwards */
    REAL *d_w;                /* [V, F]: eᵀ (factor x), the factor's product rounded to OPERAND, before */
} own_words_args;

/* Per thread: some features of all rows, as a word may be the own one of many.
 *
 * e_own is 1. In d_w its term is done again, without rounding: share and factor nearly cancel where a
 * word was certain. */
void own_words(const own_words_args *s) {
    PARALLEL(s->threads) {
        const range mine = share_of(groups_of(s->inner));
        for (long row = 0; row < s->rows; row++) {
            const REAL share = s->share[row], factor = s->factors[row];
            for (long k = mine.begin * LANES; k < at_most(mine.end * LANES, s->inner); k += LANES) {
                const long n = at_most(s->inner - k, LANES), at = s->targets[row] * s->inner + k;
                REAL *const d_x = s->d_x + row * s->inner + k;
                const vec x = load_operand(s->x + row * s->inner + k, n);
                store(d_x, load(d_x, n) * factor - as_operand(load(s->w + at, n)) * share, n);
                const vec correction = x * (factor - share) - as_operand(x * factor);
                store(s->d_w + at, load(s->d_w + at, n) + correction, n);
            }
        }
    }
}
