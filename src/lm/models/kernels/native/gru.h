/* The loop of a GRU over a window, shared out by `part_of`. */

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
} gru_forward_args;

void gru_forward(const gru_forward_args *s) {
    const long H = s->size, B = s->streams, groups = groups_of(H), block = group_size(H);
    barrier_t barrier = {0, 0};
    PARALLEL(s->threads) {
        const part_t mine = part_of(groups, B, 3 * groups * block * sizeof(OPERAND));
        pack_gates(s->packed, s->w, 3, H, share_of(groups));
        if (mine.by_streams) wait_for_all(&barrier);
        for (long b = mine.streams.begin; b < mine.streams.end; b++)
            for (long u = mine.units.begin; u < mine.units.end; u++)
                *(vec *)(s->states + (b * groups + u) * LANES) =
                    load(s->h + b * H + u * LANES, at_most(H - u * LANES, LANES));
        for (long t = 0; t < s->steps; t++) {
            const OPERAND *before = s->y + t * B * H;
            for (long u = mine.units.begin; u < mine.units.end; u++) {
                const long h = u * LANES, n = at_most(H - h, LANES);
                vec bias[3];
                for (long gate = 0; gate < 3; gate++)
                    bias[gate] = s->bias ? load(s->bias + gate * H + h, n) : (vec){};
                const vec inner_bias = s->inner_bias ? load(s->inner_bias + h, n) : (vec){};
                for (long tile = mine.tiles.begin, b = mine.streams.begin, rows; b < mine.streams.end;
                     tile++, b += rows) {
                    rows = rows_at(b, B);
                    vec a[ROWS][4];
                    multiply(rows, 3, before + b * H, H, PAIR,
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
            if (!mine.by_streams) wait_for_all(&barrier);
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
    REAL *d_bias;             /* r, z, n and b'_n [tiles, 4H]: zeros before */
    REAL *dh_first;           /* [B, H] or null */
} gru_backward_args;

void gru_backward(const gru_backward_args *s) {
    const long H = s->size, B = s->streams, groups = groups_of(H), block = group_size(3 * H);
    barrier_t barrier = {0, 0};
    PARALLEL(s->threads) {
        const part_t mine = part_of(groups, B, groups * block * sizeof(OPERAND));
        pack_units(s->packed, s->w, 3, H, share_of(groups));
        if (mine.by_streams) wait_for_all(&barrier);
        for (long b = mine.streams.begin; b < mine.streams.end; b++)
            for (long u = mine.units.begin; u < mine.units.end; u++)
                *(vec *)(s->carry + (b * groups + u) * LANES) =
                    s->dh_last
                        ? load(s->dh_last + b * H + u * LANES, at_most(H - u * LANES, LANES))
                        : (vec){};
        for (long t = s->steps - 1; t >= -1; t--) {
            if (t < 0 && !s->dh_first) break;
            for (long u = mine.units.begin, width; u < mine.units.end; u += width) {
                width = even_part(mine.units.end - u, 4);
                for (long tile = mine.tiles.begin, b = mine.streams.begin, rows; b < mine.streams.end;
                     tile++, b += rows) {
                    rows = rows_at(b, B);
                    vec a[ROWS][4] = {}, sum[4][4] = {};
                    if (t + 1 < s->steps)
                        multiply(rows, width, s->d_gates + ((t + 1) * B + b) * 3 * H, 3 * H, PAIR,
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
                    if (t >= 0) add_to_bias(s->d_bias + tile * 4 * H, H, u, width, sum);
                }
            }
            if (!mine.by_streams) wait_for_all(&barrier);
        }
    }
}
