/* Products of a few rows with a matrix that lies packed: A [rows, K] times columns of K elements.
 *
 * A packed matrix is a row of column groups, [K][LANES] each (bf16: [K/2][LANES][2], zero at an odd
 * end). From a row of A to the next it is `a_row` elements, from a word to the next `a_step`, so that
 * A may be packed as well. A tile is up to ROWS rows by up to 4 groups, all of it in registers; the
 * groups need not be neighbours: the four gates of LANES units are one tile.
 */

#ifdef BF16
#define PAIR 2
#else
#define PAIR 1
#endif

/* Elements of a packed group. */
INLINE long group_size(long inner) { return (inner + PAIR - 1) / PAIR * PAIR * LANES; }

/* What is packed is of OPERAND, or (`real`) of REAL and rounded on the way. */
#ifdef BF16
/* LANES consecutive operands. */
INLINE half half_vector(const void *from, long at, int real) {
    half h;
    if (real) {
        vec v;
        memcpy(&v, (const REAL *)from + at, sizeof v);
        return rounded(v);
    }
    memcpy(&h, (const OPERAND *)from + at, sizeof h);
    return h;
}
#endif

INLINE OPERAND element(const void *from, long at, int real) {
#ifdef BF16
    if (real) return rounded(all(((const REAL *)from)[at]))[0];
#endif
    return ((const OPERAND *)from)[at];
}

/* LANES consecutive words: operands, or pairs of them. */
INLINE vec word_vector(const void *from, long at, int real) {
    vec v;
#ifdef BF16
    if (real) {
        const half both[2] = {half_vector(from, at, 1), half_vector(from, at + LANES, 1)};
        memcpy(&v, both, sizeof v);
        return v;
    }
#endif
    memcpy(&v, (const OPERAND *)from + at, sizeof v);
    return v;
}

/* LANES words of LANES rows: rows become columns, by log2(LANES) perfect shuffles. */
INLINE void transpose(vec m[LANES]) {
    mask low, high;
    for (long l = 0; l < LANES; l++) {
        low[l] = l / 2 + l % 2 * LANES;
        high[l] = low[l] + LANES / 2;
    }
    UNROLL for (long stage = 1; stage < LANES; stage *= 2) {
        vec next[LANES];
        UNROLL for (long l = 0; l < LANES / 2; l++) {
            next[2 * l] = __builtin_shuffle(m[l], m[l + LANES / 2], low);
            next[2 * l + 1] = __builtin_shuffle(m[l], m[l + LANES / 2], high);
        }
        UNROLL for (long l = 0; l < LANES; l++) m[l] = next[l];
    }
}

/* Column c of the group is row c of the matrix [.., stride]; `valid` of LANES are there. */
INLINE void pack_rows(
    OPERAND *to, const void *from, int real, long at, long inner, long stride, long valid
) {
    long k = 0;
    for (; k + PAIR * LANES <= inner; k += PAIR * LANES) {
        vec m[LANES];
        UNROLL for (long c = 0; c < LANES; c++)
            m[c] = c < valid ? word_vector(from, at + c * stride + k, real) : (vec){};
        transpose(m);
        UNROLL for (long l = 0; l < LANES; l++) memcpy(to + (k + PAIR * l) * LANES, &m[l], sizeof *m);
    }
    for (; k < inner; k += PAIR)
        for (long c = 0; c < LANES; c++)
            for (long p = 0; p < PAIR; p++)
                to[k * LANES + c * PAIR + p] =
                    c < valid && k + p < inner ? element(from, at + c * stride + k + p, real) : 0;
}

/* Columns of the matrix [inner, stride], LANES a group. All groups of a row at once: a row is far
 * from the next one, its elements are not. */
INLINE void pack_columns(
    OPERAND *to, const void *from, int real, long at, long inner, long stride, long columns
) {
    const long whole = columns / LANES, block = group_size(inner);
    for (long k = 0; k + PAIR <= inner; k += PAIR)
        for (long g = 0; g < whole; g++) {
            const long here = at + k * stride + g * LANES;
#ifdef BF16
            const half a = half_vector(from, here, real);
            const half b = half_vector(from, here + stride, real);
            const bits words = __builtin_convertvector(a, bits)
                                     | __builtin_convertvector(b, bits) << 16;
#else
            const vec words = word_vector(from, here, real);
#endif
            memcpy(to + g * block + k * LANES, &words, sizeof words);
        }
    const long odd = inner / PAIR * PAIR;
    for (long g = 0; g < groups_of(columns); g++)
        for (long k = g < whole ? odd : 0; k < inner; k += PAIR)
            for (long c = 0; c < LANES; c++)
                for (long p = 0; p < PAIR; p++)
                    to[g * block + k * LANES + c * PAIR + p] =
                        g * LANES + c < columns && k + p < inner
                            ? element(from, at + (k + p) * stride + g * LANES + c, real) : 0;
}

/* W [gates · size, size], gate after gate, for products with W^T: some groups of units. */
static void pack_gates(OPERAND *to, const OPERAND *w, long gates, long size, range units) {
    const long groups = groups_of(size), block = group_size(size);
    for (long u = units.begin; u < units.end; u++)
        for (long gate = 0; gate < gates; gate++)
            pack_rows(to + (gate * groups + u) * block, w, 0, (gate * size + u * LANES) * size,
                      size, size, at_most(size - u * LANES, LANES));
}

/* W [gates · size, size] for products with W: some groups of units. */
static void pack_units(OPERAND *to, const OPERAND *w, long gates, long size, range units) {
    if (units.begin == units.end) return;
    const long end = at_most(units.end * LANES, size);
    pack_columns(to + units.begin * group_size(gates * size), w, 0, units.begin * LANES,
                 gates * size, size, end - units.begin * LANES);
}

#ifdef BF16
/* sum + both products of a pair, as the instruction does it: in float32. */
INLINE vec dot(vec sum, bits pair, vec packed) {
#ifdef NATIVE_BF16
    return _mm512_dpbf16_ps(sum, (__m512bh)pair, (__m512bh)packed);
#else
    bits other = (bits)packed;
    sum += (vec)(pair & 0xffff0000u) * (vec)(other & 0xffff0000u);
    return sum + (vec)(pair << 16) * (vec)(other << 16);
#endif
}
#endif

INLINE void tile(
    int rows, int groups, const OPERAND *a, long a_row, long a_step, const OPERAND *packed,
    long distance, long inner, vec out[ROWS][4]
) {
    vec sum[ROWS][4];
    for (int r = 0; r < rows; r++)
        for (int g = 0; g < groups; g++) sum[r][g] = (vec){};
#ifdef BF16
    for (long k = 0; k + 1 < inner; k += 2, a += a_step) {
        vec w[4];
        UNROLL for (int g = 0; g < groups; g++)
            memcpy(&w[g], packed + g * distance + k * LANES, sizeof *w);
        UNROLL for (int r = 0; r < rows; r++) {
            uint32_t pair;
            memcpy(&pair, a + r * a_row, sizeof pair);
            bits both = pair - (bits){};
            UNROLL for (int g = 0; g < groups; g++) sum[r][g] = dot(sum[r][g], both, w[g]);
        }
    }
    if (inner % 2)
        for (int r = 0; r < rows; r++)
            for (int g = 0; g < groups; g++) {
                const OPERAND last = a[r * a_row];
                vec w;
                memcpy(&w, packed + g * distance + (inner - 1) * LANES, sizeof w);
                sum[r][g] = dot(sum[r][g], last - (bits){}, w);
            }
#else
    for (long k = 0; k < inner; k++, a += a_step) {
        vec w[4];
        UNROLL for (int g = 0; g < groups; g++)
            memcpy(&w[g], packed + g * distance + k * LANES, sizeof *w);
        UNROLL for (int r = 0; r < rows; r++) {
            vec x = all(a[r * a_row]);
            UNROLL for (int g = 0; g < groups; g++) sum[r][g] += x * w[g];
        }
    }
#endif
    for (int r = 0; r < rows; r++)
        for (int g = 0; g < groups; g++) out[r][g] = sum[r][g];
}

/* The tile with its numbers of rows and groups as constants, so that it lies in registers. */
#define TILE(r, g) case (r) * 8 + (g): tile(r, g, a, a_row, a_step, packed, distance, inner, out); break;
#define TILES(r) TILE(r, 1) TILE(r, 2) TILE(r, 3) TILE(r, 4)
static __attribute__((noinline)) void multiply(
    int rows, int groups, const OPERAND *a, long a_row, long a_step, const OPERAND *packed,
    long distance, long inner, vec out[ROWS][4]
) {
    switch (rows * 8 + groups) {
        TILES(1) TILES(2) TILES(3)
#if ROWS > 3
        TILES(4) TILES(5) TILES(6)
#endif
    }
}

/* Add a step's sums over the streams to the bias gradient [4, size], for `width` groups from u on. */
INLINE void add_to_bias(REAL *d_bias, long size, long u, long width, vec sum[4][4]) {
    for (long v = 0; v < width; v++)
        for (long gate = 0; gate < 4; gate++) {
            const long h = (u + v) * LANES, n = at_most(size - h, LANES);
            REAL *to = d_bias + gate * size + h;
            store(to, load(to, n) + sum[v][gate], n);
        }
}
