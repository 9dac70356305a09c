/* Products of a few rows with a matrix that lies packed: A [rows, K] times columns of K elements.
 *
 * A packed matrix is a row of column groups, [K][LANES] each (bf16: [K/2][LANES][2], zero at an odd
 * end). A tile is up to ROWS rows by up to 4 groups, all of it in registers; the groups need not be
 * neighbours: the four gates of LANES units are one tile.
 */

#ifdef BF16
#define PAIR 2
#else
#define PAIR 1
#endif

/* Elements of a packed group. */
INLINE long NAME(group_size)(long inner) { return (inner + PAIR - 1) / PAIR * PAIR * LANES; }
#define group_size NAME(group_size)

/* Column c of the group is row c of the matrix [.., inner]; `valid` of LANES are there. */
static void NAME(pack_rows)(OPERAND *to, const OPERAND *from, long inner, long valid) {
    long k = 0;
    for (; valid == LANES && k + PAIR <= inner; k += PAIR)
        for (long c = 0; c < LANES; c++)
            memcpy(to + k * LANES + c * PAIR, from + c * inner + k, PAIR * sizeof *to);
    for (; k < inner; k += PAIR)
        for (long c = 0; c < LANES; c++)
            for (long p = 0; p < PAIR; p++)
                to[k * LANES + c * PAIR + p] = c < valid && k + p < inner ? from[c * inner + k + p] : 0;
}

/* Column c of the group is column c of the matrix [inner, stride]. */
static void NAME(pack_columns)(OPERAND *to, const OPERAND *from, long inner, long stride, long valid) {
    long k = 0;
#ifdef BF16
    for (; valid == LANES && k + 1 < inner; k += 2) {
        NAME(half) a, b;
        memcpy(&a, from + k * stride, sizeof a);
        memcpy(&b, from + (k + 1) * stride, sizeof b);
        const NAME(bits) pairs = __builtin_convertvector(a, NAME(bits))
                                 | __builtin_convertvector(b, NAME(bits)) << 16;
        memcpy(to + k * LANES, &pairs, sizeof pairs);
    }
#else
    for (; valid == LANES && k < inner; k++) memcpy(to + k * LANES, from + k * stride, sizeof(vec));
#endif
    for (; k < inner; k += PAIR)
        for (long c = 0; c < LANES; c++)
            for (long p = 0; p < PAIR; p++)
                to[k * LANES + c * PAIR + p] = c < valid && k + p < inner ? from[(k + p) * stride + c] : 0;
}
#define pack_rows NAME(pack_rows)
#define pack_columns NAME(pack_columns)

#ifdef BF16
/* sum + both products of a pair, as the instruction does it: in float32. */
INLINE vec NAME(dot)(vec sum, NAME(bits) pair, vec packed) {
#ifdef NATIVE_BF16
    return _mm512_dpbf16_ps(sum, (__m512bh)pair, (__m512bh)packed);
#else
    NAME(bits) other = (NAME(bits))packed;
    sum += (vec)(pair & 0xffff0000u) * (vec)(other & 0xffff0000u);
    return sum + (vec)(pair << 16) * (vec)(other << 16);
#endif
}
#endif

INLINE void NAME(tile)(
    int rows, int groups, const OPERAND *a, long a_stride, const OPERAND *packed,
    long distance, long inner, vec out[ROWS][4]
) {
    vec sum[ROWS][4];
    for (int r = 0; r < rows; r++)
        for (int g = 0; g < groups; g++) sum[r][g] = (vec){};
#ifdef BF16
    for (long k = 0; k + 1 < inner; k += 2) {
        vec w[4];
        UNROLL for (int g = 0; g < groups; g++)
            memcpy(&w[g], packed + g * distance + k * LANES, sizeof *w);
        UNROLL for (int r = 0; r < rows; r++) {
            uint32_t pair;
            memcpy(&pair, a + r * a_stride + k, sizeof pair);
            NAME(bits) both = pair - (NAME(bits)){};
            UNROLL for (int g = 0; g < groups; g++) sum[r][g] = NAME(dot)(sum[r][g], both, w[g]);
        }
    }
    if (inner % 2)
        for (int r = 0; r < rows; r++)
            for (int g = 0; g < groups; g++) {
                const OPERAND last = a[r * a_stride + inner - 1];
                vec w;
                memcpy(&w, packed + g * distance + (inner - 1) * LANES, sizeof w);
                sum[r][g] = NAME(dot)(sum[r][g], last - (NAME(bits)){}, w);
            }
#else
    for (long k = 0; k < inner; k++) {
        vec w[4];
        UNROLL for (int g = 0; g < groups; g++)
            memcpy(&w[g], packed + g * distance + k * LANES, sizeof *w);
        UNROLL for (int r = 0; r < rows; r++) {
            vec x = all(a[r * a_stride + k]);
            UNROLL for (int g = 0; g < groups; g++) sum[r][g] += x * w[g];
        }
    }
#endif
    for (int r = 0; r < rows; r++)
        for (int g = 0; g < groups; g++) out[r][g] = sum[r][g];
}

/* The tile with its numbers of rows and groups as constants, so that it lies in registers. */
#define TILE(r, g) case (r) * 8 + (g): NAME(tile)(r, g, a, a_stride, packed, distance, inner, out); break;
#define TILES(r) TILE(r, 1) TILE(r, 2) TILE(r, 3) TILE(r, 4)
static __attribute__((noinline)) void NAME(multiply)(
    int rows, int groups, const OPERAND *a, long a_stride, const OPERAND *packed,
    long distance, long inner, vec out[ROWS][4]
) {
    switch (rows * 8 + groups) {
        TILES(1) TILES(2) TILES(3)
#if ROWS > 3
        TILES(4) TILES(5) TILES(6)
#endif
    }
}
#define multiply NAME(multiply)

/* Add a step's sums over the streams to the bias gradient [4, size], for `width` groups from u on. */
INLINE void NAME(add_to_bias)(REAL *d_bias, long size, long u, long width, vec sum[4][4]) {
    for (long v = 0; v < width; v++)
        for (long gate = 0; gate < 4; gate++) {
            const long h = (u + v) * LANES, n = at_most(size - h, LANES);
            REAL *to = d_bias + gate * size + h;
            store(to, load(to, n) + sum[v][gate], n);
        }
}
#define add_to_bias NAME(add_to_bias)
