/* The loop of a GRU over a window. Per thread: a range of unit groups, all streams. */

typedef struct {
    long steps, streams, size, threads;
    const OPERAND *w;         /* W_hh [3H, H] */
    OPERAND *packed;          /* 3 × groups × group_size(H) */
    const OPERAND *x;         /* W_ih x_t [T, B, 3H] */
    const REAL *bias;         /* [3H] or null */
    const REAL *inner_bias;   /* b'_n [H] or null */
    const REAL *h;            /* before the window [B, H] */
    OPERAND *y;               /* [T + 1, B, H], y[0] filled */
    REAL *gates;              /* r, z, n and U_n h + b'_n: [T, B, groups, 4, LANES] */
    REAL *states;             /* [T + 1, B, groups, LANES] */
    REAL *last;               /* [B, H] */
} NAME(gru_forward_args);

void NAME(gru_forward)(const NAME(gru_forward_args) *s) {
    const long H = s->size, B = s->streams, groups = groups_of(H), block = group_size(H);
    barrier_t barrier = {0, 0};
    PARALLEL(s->threads) {
        const range mine = share_of(groups);
        for (long u = mine.begin; u < mine.end; u++) {
            const long h = u * LANES, n = at_most(H - h, LANES);
            for (long gate = 0; gate < 3; gate++)
                pack_rows(s->packed + (gate * groups + u) * block, s->w + (gate * H + h) * H, H, n);
            for (long b = 0; b < B; b++)
                *(vec *)(s->states + (b * groups + u) * LANES) = load(s->h + b * H + h, n);
        }
        for (long t = 0; t < s->steps; t++) {
            const OPERAND *before = s->y + t * B * H;
            for (long u = mine.begin; u < mine.end; u++) {
                const long h = u * LANES, n = at_most(H - h, LANES);
                vec bias[3];
                for (long gate = 0; gate < 3; gate++)
                    bias[gate] = s->bias ? load(s->bias + gate * H + h, n) : (vec){};
                const vec inner_bias = s->inner_bias ? load(s->inner_bias + h, n) : (vec){};
                for (long b = 0, rows; b < B; b += rows) {
                    rows = rows_at(b, B);
                    vec a[ROWS][4];
                    multiply(rows, 3, before + b * H, H,
                             s->packed + u * block, groups * block, H, a);
                    for (long q = 0; q < rows; q++) {
                        const long at = ((t * B + b + q) * groups + u) * LANES;
                        const OPERAND *x = s->x + ((t * B + b + q) * 3) * H + h;
                        const vec r = sigmoid(a[q][0] + load_operand(x, n) + bias[0]);
                        const vec z = sigmoid(a[q][1] + load_operand(x + H, n) + bias[1]);
                        const vec inner = a[q][2] + inner_bias;
                        const vec c = hyperbolic(load_operand(x + 2 * H, n) + bias[2] + r * inner);
                        const vec y = c + z * (*(vec *)(s->states + at) - c);
                        vec *kept = (vec *)(s->gates + 4 * at);
                        kept[0] = r, kept[1] = z, kept[2] = c, kept[3] = inner;
                        *(vec *)(s->states + at + B * groups * LANES) = y;
                        store_operand(s->y + ((t + 1) * B + b + q) * H + h, y, n);
                        if (t + 1 == s->steps) store(s->last + (b + q) * H + h, y, n);
                    }
                }
            }
            wait_for_all(&barrier);
        }
    }
}

typedef struct {
    long steps, streams, size, threads;
    const OPERAND *w;         /* W_hh [3H, H] */
    OPERAND *packed;          /* groups × group_size(3H) */
    const REAL *gates, *states;
    const OPERAND *dy;        /* [T, B, H] */
    const REAL *dh_last;      /* [B, H] or null */
    REAL *carry;              /* z ∂L/∂h [B, groups, LANES]: scratch */
    OPERAND *d_gates;         /* of r, z and U_n h + b'_n [T, B, 3H] */
    OPERAND *d_candidate;     /* of the candidate's pre-activation [T, B, H] */
    REAL *d_bias;             /* r, z, n and b'_n [4H] */
    REAL *dh_first;           /* [B, H] or null */
} NAME(gru_backward_args);

void NAME(gru_backward)(const NAME(gru_backward_args) *s) {
    const long H = s->size, B = s->streams, groups = groups_of(H), block = group_size(3 * H);
    barrier_t barrier = {0, 0};
    PARALLEL(s->threads) {
        const range mine = share_of(groups);
        for (long u = mine.begin; u < mine.end; u++) {
            const long h = u * LANES, n = at_most(H - h, LANES);
            pack_columns(s->packed + u * block, s->w + h, 3 * H, H, n);
            for (long gate = 0; gate < 4; gate++) store(s->d_bias + gate * H + h, (vec){}, n);
            for (long b = 0; b < B; b++)
                *(vec *)(s->carry + (b * groups + u) * LANES) =
                    s->dh_last ? load(s->dh_last + b * H + h, n) : (vec){};
        }
        for (long t = s->steps - 1; t >= -1; t--) {
            if (t < 0 && !s->dh_first) break;
            for (long u = mine.begin, width; u < mine.end; u += width) {
                width = at_most(mine.end - u, 4);
                vec sum[4][4] = {};
                for (long b = 0, rows; b < B; b += rows) {
                    rows = rows_at(b, B);
                    vec a[ROWS][4] = {};
                    if (t + 1 < s->steps)
                        multiply(rows, width, s->d_gates + ((t + 1) * B + b) * 3 * H, 3 * H,
                             s->packed + u * block, block, 3 * H, a);
                    for (long q = 0; q < rows; q++)
                        for (long v = 0; v < width; v++) {
                            const long h = (u + v) * LANES, n = at_most(H - h, LANES);
                            const long row = (b + q) * H + h;
                            vec *carry = (vec *)(s->carry + ((b + q) * groups + u + v) * LANES);
                            vec dh = a[q][v] + *carry;
                            if (t < 0) {
                                store(s->dh_first + row, dh, n);
                                continue;
                            }
                            dh += load_operand(s->dy + t * B * H + row, n);
                            const long at = ((t * B + b + q) * groups + u + v) * LANES;
                            const vec *kept = (const vec *)(s->gates + 4 * at);
                            const vec r = kept[0], z = kept[1], c = kept[2], inner = kept[3];
                            const vec d_c = dh * (1 - z) * (1 - c * c);
                            const vec d[4] = {
                                d_c * inner * r * (1 - r),
                                dh * (*(const vec *)(s->states + at) - c) * z * (1 - z),
                                d_c,
                                d_c * r,
                            };
                            *carry = dh * z;
                            for (long gate = 0; gate < 4; gate++) sum[v][gate] += d[gate];
                            OPERAND *to = s->d_gates + ((t * B + b + q) * 3) * H + h;
                            store_operand(to, d[0], n);
                            store_operand(to + H, d[1], n);
                            store_operand(to + 2 * H, d[3], n);
                            store_operand(s->d_candidate + t * B * H + row, d_c, n);
                        }
                }
                if (t >= 0) add_to_bias(s->d_bias, H, u, width, sum);
            }
            wait_for_all(&barrier);
        }
    }
}
