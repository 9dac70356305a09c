/* The loop of an Elman network over a window, shared out by `part_of`. */

INLINE vec squash(vec a, long nonlinearity) {
    if (nonlinearity == TANH) return hyperbolic(a);
    if (nonlinearity == SIGMOID) return sigmoid(a);
    return blend((mask)(a <= 0), (vec){}, a); /* relu; NaN stays */
}

/* σ' as a function of σ's value. */
INLINE vec slope(vec y, long nonlinearity) {
    if (nonlinearity == TANH) return 1 - y * y;
    if (nonlinearity == SIGMOID) return y * (1 - y);
    return blend((mask)(y > 0), all(1), (vec){});
}

typedef struct {
    long steps, streams, size, threads, nonlinearity;
    const OPERAND *w;         /* W_hh [H, H] */
    OPERAND *packed;          /* groups × group_size(H) */
    const OPERAND *x;         /* W_hx x_t [T, B, H] */
    const REAL *bias;         /* [H] or null */
    OPERAND *y;               /* [T + 1, B, H], y[0] filled */
    REAL *states;             /* [T, B, groups, LANES] */
    REAL *last;               /* [B, H] */
} rnn_forward_args;

void rnn_forward(const rnn_forward_args *s) {
    const long H = s->size, B = s->streams, groups = groups_of(H), block = group_size(H);
    barrier_t barrier = {0, 0};
    PARALLEL(s->threads) {
        const part_t mine = part_of(groups, B, groups * block * sizeof(OPERAND));
        pack_gates(s->packed, s->w, 1, H, share_of(groups));
        if (mine.by_streams) wait_for_all(&barrier);
        for (long t = 0; t < s->steps; t++) {
            for (long u = mine.units.begin, width; u < mine.units.end; u += width) {
                width = even_part(mine.units.end - u, 4);
                for (long tile = mine.tiles.begin, b = mine.streams.begin, rows; b < mine.streams.end;
                     tile++, b += rows) {
                    rows = rows_at(b, B);
                    vec a[ROWS][4];
                    multiply(rows, width, s->y + (t * B + b) * H, H, PAIR,
                             s->packed + u * block, block, H, a);
                    for (long r = 0; r < rows; r++)
                        for (long v = 0; v < width; v++) {
                            const long h = (u + v) * LANES, n = at_most(H - h, LANES);
                            const long row = (t * B + b + r) * H + h;
                            vec y = a[r][v] + load_operand(s->x + row, n);
                            if (s->bias) y += load(s->bias + h, n);
                            y = squash(y, s->nonlinearity);
                            *(vec *)(s->states + ((t * B + b + r) * groups + u + v) * LANES) = y;
                            store_operand(s->y + row + B * H, y, n);
                            if (t + 1 == s->steps) store(s->last + (b + r) * H + h, y, n);
                        }
                }
            }
            if (!mine.by_streams) wait_for_all(&barrier);
        }
    }
}

typedef struct {
    long steps, streams, size, threads, nonlinearity;
    const OPERAND *w;         /* W_hh [H, H] */
    OPERAND *packed;          /* groups × group_size(H) */
    const REAL *states;
    const OPERAND *dy;        /* [T, B, H] */
    const REAL *dh_last;      /* [B, H] or null */
    OPERAND *d_a;             /* of the pre-activations [T, B, H] */
    REAL *d_bias;             /* [tiles, H]: zeros before */
    REAL *dh_first;           /* [B, H] or null */
} rnn_backward_args;

void rnn_backward(const rnn_backward_args *s) {
    const long H = s->size, B = s->streams, groups = groups_of(H), block = group_size(H);
    barrier_t barrier = {0, 0};
    PARALLEL(s->threads) {
        const part_t mine = part_of(groups, B, groups * block * sizeof(OPERAND));
        pack_units(s->packed, s->w, 1, H, share_of(groups));
        if (mine.by_streams) wait_for_all(&barrier);
        for (long t = s->steps - 1; t >= -1; t--) {
            if (t < 0 && !s->dh_first) break;
            for (long u = mine.units.begin, width; u < mine.units.end; u += width) {
                width = even_part(mine.units.end - u, 4);
                for (long tile = mine.tiles.begin, b = mine.streams.begin, rows; b < mine.streams.end;
                     tile++, b += rows) {
                    rows = rows_at(b, B);
                    vec a[ROWS][4], sum[4] = {};
                    if (t + 1 < s->steps)
                        multiply(rows, width, s->d_a + ((t + 1) * B + b) * H, H, PAIR,
                             s->packed + u * block, block, H, a);
                    for (long r = 0; r < rows; r++)
                        for (long v = 0; v < width; v++) {
                            const long h = (u + v) * LANES, n = at_most(H - h, LANES);
                            const long row = (b + r) * H + h;
                            vec dh = t + 1 < s->steps ? a[r][v]
                                     : s->dh_last ? load(s->dh_last + row, n) : (vec){};
                            if (t < 0) {
                                store(s->dh_first + row, dh, n);
                                continue;
                            }
                            dh += load_operand(s->dy + t * B * H + row, n);
                            const long at = ((t * B + b + r) * groups + u + v) * LANES;
                            dh *= slope(*(const vec *)(s->states + at), s->nonlinearity);
                            sum[v] += dh;
                            store_operand(s->d_a + t * B * H + row, dh, n);
                        }
                    for (long v = 0; v < width && t >= 0; v++) {
                        const long h = (u + v) * LANES, n = at_most(H - h, LANES);
                        REAL *to = s->d_bias + tile * H + h;
                        store(to, load(to, n) + sum[v], n);
                    }
                }
            }
            if (!mine.by_streams) wait_for_all(&barrier);
        }
    }
}
