/* The loop of an LSTM over a window, shared out by `part_of`. */

typedef struct {
    long steps, streams, size, threads;
    const OPERAND *w;         /* W_hh [4H, H] */
    OPERAND *packed;          /* 4 × groups × group_size(H) */
    const OPERAND *x;         /* W_ih x_t [T, B, 4H] */
    const REAL *bias;         /* [4H] or null */
    const REAL *c;            /* before the window [B, H] */
    OPERAND *y;               /* [T + 1, B, H], y[0] filled */
    REAL *gates;              /* [T, B, groups, 4, LANES], kept for the way back */
    REAL *cells;              /* [T + 1, B, groups, LANES], likewise */
    REAL *last_h, *last_c;    /* [B, H] */
} lstm_forward_args;

void lstm_forward(const lstm_forward_args *s) {
    const long H = s->size, B = s->streams, groups = groups_of(H), block = group_size(H);
    barrier_t barrier = {0, 0};
    PARALLEL(s->threads) {
        const part_t mine = part_of(groups, B, 4 * groups * block * sizeof(OPERAND));
        pack_gates(s->packed, s->w, 4, H, share_of(groups));
        if (mine.by_streams) wait_for_all(&barrier);
        for (long b = mine.streams.begin; b < mine.streams.end; b++)
            for (long u = mine.units.begin; u < mine.units.end; u++)
                *(vec *)(s->cells + (b * groups + u) * LANES) =
                    load(s->c + b * H + u * LANES, at_most(H - u * LANES, LANES));
        for (long t = 0; t < s->steps; t++) {
            const OPERAND *before = s->y + t * B * H;
            for (long u = mine.units.begin; u < mine.units.end; u++) {
                const long h = u * LANES, n = at_most(H - h, LANES);
                vec bias[4];
                for (long gate = 0; gate < 4; gate++)
                    bias[gate] = s->bias ? load(s->bias + gate * H + h, n) : (vec){};
                for (long tile = mine.tiles.begin, b = mine.streams.begin, rows; b < mine.streams.end;
                     tile++, b += rows) {
                    rows = rows_at(b, B);
                    vec a[ROWS][4];
                    multiply(rows, 4, before + b * H, H, PAIR,
                             s->packed + u * block, groups * block, H, a);
                    /* Two loops: the second function of a row has to wait for the first. */
                    for (long r = 0; r < rows; r++) {
                        const long at = ((t * B + b + r) * groups + u) * LANES;
                        const OPERAND *x = s->x + ((t * B + b + r) * 4) * H + h;
                        for (long gate = 0; gate < 4; gate++)
                            a[r][gate] += load_operand(x + gate * H, n) + bias[gate];
                        vec *kept = (vec *)(s->gates + 4 * at);
                        kept[0] = sigmoid(a[r][0]), kept[1] = sigmoid(a[r][1]);
                        kept[2] = hyperbolic(a[r][2]), kept[3] = a[r][3] = sigmoid(a[r][3]);
                        a[r][0] = kept[1] * *(vec *)(s->cells + at) + kept[0] * kept[2];
                        *(vec *)(s->cells + at + B * groups * LANES) = a[r][0];
                    }
                    for (long r = 0; r < rows; r++) {
                        const long row = (b + r) * H + h;
                        const vec y = a[r][3] * hyperbolic(a[r][0]);
                        store_operand(s->y + (t + 1) * B * H + row, y, n);
                        if (t + 1 == s->steps) {
                            store(s->last_h + row, y, n);
                            store(s->last_c + row, a[r][0], n);
                        }
                    }
                }
            }
            if (!mine.by_streams) wait_for_all(&barrier);
        }
    }
}

typedef struct {
    long steps, streams, size, threads;
    const OPERAND *w;         /* W_hh [4H, H] */
    OPERAND *packed;          /* groups × group_size(4H) */
    const REAL *gates, *cells;
    const OPERAND *dy;        /* [T, B, H] */
    const REAL *dh_last;      /* [B, H] or null */
    REAL *dc;                 /* [B, groups, LANES]: scratch */
    const REAL *dc_last;      /* [B, H] or null */
    OPERAND *d_gates;         /* [T, B, 4H] */
    REAL *d_bias;             /* [tiles, 4H]: zeros before */
    REAL *dh_first, *dc_first; /* [B, H]; dh_first may be null */
} lstm_backward_args;

void lstm_backward(const lstm_backward_args *s) {
    const long H = s->size, B = s->streams, groups = groups_of(H), block = group_size(4 * H);
    barrier_t barrier = {0, 0};
    PARALLEL(s->threads) {
        const part_t mine = part_of(groups, B, groups * block * sizeof(OPERAND));
        pack_units(s->packed, s->w, 4, H, share_of(groups));
        if (mine.by_streams) wait_for_all(&barrier);
        for (long b = mine.streams.begin; b < mine.streams.end; b++)
            for (long u = mine.units.begin; u < mine.units.end; u++)
                *(vec *)(s->dc + (b * groups + u) * LANES) =
                    s->dc_last
                        ? load(s->dc_last + b * H + u * LANES, at_most(H - u * LANES, LANES))
                        : (vec){};
        for (long t = s->steps - 1; t >= -1; t--) {
            if (t < 0 && !s->dh_first) break;
            for (long u = mine.units.begin, width; u < mine.units.end; u += width) {
                width = even_part(mine.units.end - u, 4);
                for (long tile = mine.tiles.begin, b = mine.streams.begin, rows; b < mine.streams.end;
                     tile++, b += rows) {
                    rows = rows_at(b, B);
                    vec a[ROWS][4], sum[4][4] = {};
                    if (t + 1 < s->steps)
                        multiply(rows, width, s->d_gates + ((t + 1) * B + b) * 4 * H, 4 * H, PAIR,
                             s->packed + u * block, block, 4 * H, a);
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
                            const vec *kept = (const vec *)(s->gates + 4 * at);
                            const vec i = kept[0], f = kept[1], g = kept[2], o = kept[3];
                            const vec squashed = hyperbolic(*(const vec *)(s->cells + at + B * groups * LANES));
                            vec *carry = (vec *)(s->dc + ((b + r) * groups + u + v) * LANES);
                            const vec dc = *carry + dh * o * (1 - squashed * squashed);
                            const vec d[4] = {
                                dc * g * i * (1 - i),
                                dc * *(const vec *)(s->cells + at) * f * (1 - f),
                                dc * i * (1 - g * g),
                                dh * squashed * o * (1 - o),
                            };
                            *carry = dc * f;
                            for (long gate = 0; gate < 4; gate++) {
                                sum[v][gate] += d[gate];
                                store_operand(s->d_gates + ((t * B + b + r) * 4 + gate) * H + h, d[gate], n);
                            }
                        }
                    if (t >= 0) add_to_bias(s->d_bias + tile * 4 * H, H, u, width, sum);
                }
            }
            if (!mine.by_streams) wait_for_all(&barrier);
        }
        for (long b = mine.streams.begin; b < mine.streams.end; b++)
            for (long u = mine.units.begin; u < mine.units.end; u++)
                store(s->dc_first + b * H + u * LANES, *(vec *)(s->dc + (b * groups + u) * LANES),
                      at_most(H - u * LANES, LANES));
    }
}
