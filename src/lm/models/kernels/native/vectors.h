/* Vectors of REAL, the bf16 that is stored beside them, and the point-wise functions.
 *
 * OPERAND is REAL or (BF16 defined) bf16. GNU C's vector types make this the same code for every
 * instruction set; only the bf16 product knows one by name (product.h).
 */

#define LANES ((long)(VECTOR_BYTES / sizeof(REAL)))

typedef REAL vec __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef INTEGER mask __attribute__((vector_size(VECTOR_BYTES)));

INLINE vec all(REAL x) { return x - (vec){}; }
INLINE vec blend(mask m, vec yes, vec no) { return (vec)((m & (mask)yes) | (~m & (mask)no)); }

/* The first n lanes. */
INLINE mask first(long n) {
    static const INTEGER lanes[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    mask lane;
    memcpy(&lane, lanes, sizeof lane);
    return lane < (INTEGER)n;
}

/* `n` of LANES values; the rest is zero. Parts are functions of their own: a vector that is indexed
 * by a variable lies in memory, not in a register.
 */
static __attribute__((noinline)) vec load_part(const REAL *from, long n) {
    vec v = {};
    for (long k = 0; k < n; k++) v[k] = from[k];
    return v;
}

static __attribute__((noinline)) void store_part(REAL *to, vec v, long n) {
    for (long k = 0; k < n; k++) to[k] = v[k];
}

INLINE vec load(const REAL *from, long n) {
    if (n < LANES) return load_part(from, n);
    vec v;
    memcpy(&v, from, sizeof v);
    return v;
}

INLINE void store(REAL *to, vec v, long n) {
    if (n < LANES) store_part(to, v, n);
    else memcpy(to, &v, sizeof v);
}

#ifdef BF16
typedef uint16_t half __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef uint32_t bits __attribute__((vector_size(VECTOR_BYTES)));

static __attribute__((noinline)) half load_half(const OPERAND *from, long n) {
    half v = {};
    for (long k = 0; k < n; k++) v[k] = from[k];
    return v;
}

static __attribute__((noinline)) void store_half(OPERAND *to, half v, long n) {
    for (long k = 0; k < n; k++) to[k] = v[k];
}

INLINE vec load_operand(const OPERAND *from, long n) {
    half v;
    if (n < LANES) v = load_half(from, n);
    else memcpy(&v, from, sizeof v);
    return (vec)(__builtin_convertvector(v, bits) << 16);
}

/* To the nearest bf16, ties to even; NaN stays NaN. */
INLINE half rounded(vec v) {
#ifdef NATIVE_BF16
    return (half)_mm512_cvtneps_pbh(v);
#else
    const bits b = (bits)v, is_nan = (bits)(v != v);
    const bits nearest = b + 0x7fff + ((b >> 16) & 1);
    return __builtin_convertvector(((is_nan & (b | 0x400000)) | (~is_nan & nearest)) >> 16, half);
#endif
}

/* The value that an operand has. */
INLINE vec as_operand(vec v) {
    return (vec)(__builtin_convertvector(rounded(v), bits) << 16);
}

INLINE void store_operand(OPERAND *to, vec v, long n) {
    const half h = rounded(v);
    if (n < LANES) store_half(to, h, n);
    else memcpy(to, &h, sizeof h);
}
#else
#define load_operand load
#define store_operand store
#define as_operand(v) (v)
#endif

#ifdef DOUBLE
/* For tests against numerical derivatives: accurate, not fast. */
#define LARGEST 709.0
INLINE vec exp_minus_one(vec x) {
    for (long k = 0; k < LANES; k++) x[k] = expm1(x[k]);
    return x;
}
INLINE vec exponential(vec x) {
    for (long k = 0; k < LANES; k++) x[k] = exp(x[k]);
    return x;
}
#else
#define LARGEST 87.0f
/* exp(r) − 1 for |r| ≤ ln 2 / 2, by its Taylor series to r^7. */
INLINE vec series(vec r) {
    vec p = all(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    return p * r * r + r;
}

/* x − n ln 2, ln 2 in two parts: the first has few bits. */
INLINE vec minus_logs(vec x, vec n) { return x - n * 0.693359375f + n * 2.12194440e-4f; }

/* exp(r) − 1 for x = n ln 2 + r, and 2^n. */
INLINE vec reduced(vec x, vec *scale) {
    const vec shift = all(12582912.0f); /* 1.5 · 2^23: adding it rounds to an integer */
    vec n = x * 1.44269504f + shift;
    *scale = (vec)(((mask)n << 23) + 0x3f800000);
    n -= shift;
    return series(minus_logs(x, n));
}

/* With a small relative error also near 0. */
INLINE vec exp_minus_one(vec x) {
    vec scale, p = reduced(x, &scale);
    return scale * p + (scale - 1);
}

INLINE vec exponential(vec x) {
    vec scale, p = reduced(x, &scale);
    return scale * p + scale;
}
#endif

/* exp(x) for x ≤ LARGEST. */
INLINE vec exp_up_to_largest(vec x) {
    return exponential(blend((mask)(x < -LARGEST), all(-LARGEST), x));
}

/* exp(x), infinite where that leaves the range and no less than exp(−LARGEST); NaN stays NaN. */
INLINE vec exponential_or_infinite(vec x) {
#if defined(__AVX512F__) && !defined(DOUBLE)
    x = _mm512_max_ps(all(-LARGEST), x);
    const vec n = _mm512_roundscale_ps(x * 1.44269504f, 0);
    return _mm512_scalef_ps(series(minus_logs(x, n)) + 1, n);
#else
    const mask beyond = (mask)(x > LARGEST);
    const vec e = exp_up_to_largest(blend(beyond, all(LARGEST), x));
    return blend(beyond, all((REAL)INFINITY), e);
#endif
}

INLINE vec sigmoid(vec x) {
    vec y = blend((mask)(x < -LARGEST), all(-LARGEST), x);
    y = blend((mask)(y > LARGEST), all(LARGEST), y);
    return 1 / (exponential(-y) + 1);
}

/* tanh |x| = (1 − e) / (1 + e) with e = exp(−2 |x|). */
INLINE vec hyperbolic(vec x) {
    mask negative = (mask)(x < 0);
    vec y = blend(negative, x, -x) * 2;
    vec e = exp_minus_one(blend((mask)(y < -LARGEST), all(-LARGEST), y));
    vec t = -e / (e + 2);
    return blend(negative, -t, t);
}
