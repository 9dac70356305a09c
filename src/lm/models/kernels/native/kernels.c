/* The loops over time that Python and single torch operations are too slow for, and the softmax
 * loss. Compiled on the machine where they run, for its instruction set (lm.runtime.native);
 * lm.models.kernels.native_cells and native_softmax call them.
 *
 * Each function takes one structure, in three variants: f64, f32, and bf16, whose products have
 * bf16 operands while state, sums and point-wise arithmetic are float32.
 *
 * Every result is written by one thread, its terms added in an order that does not depend on the
 * number of threads; only softmax's d_bias comes in one part per thread.
 */

#include <math.h>
#include <omp.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

#if defined(__AVX512F__)
#include <immintrin.h>
#define VECTOR_BYTES 64
#define ROWS 6 /* 6 × 4 sums and 4 columns in 32 registers */
#ifdef __AVX512BF16__
#define NATIVE_BF16
#endif
#else
#if defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#define ROWS 3 /* 3 × 4 sums in 16 registers */
#endif

enum { TANH, RELU, SIGMOID };

INLINE long at_most(long a, long b) { return a < b ? a : b; }

/* Rows of the tile at row b: as even as possible, at most ROWS. */
INLINE long rows_at(long b, long rows) {
    const long left = rows - b, tiles = (left + ROWS - 1) / ROWS;
    return (left + tiles - 1) / tiles;
}

typedef struct { long begin, end; } range;

INLINE long thread(void) { return omp_get_thread_num(); }

/* This thread's part of `count`. There may be fewer threads than were asked for. */
INLINE range share_of(long count) {
    const long threads = omp_get_num_threads();
    return (range){count * thread() / threads, count * (thread() + 1) / threads};
}

#define PRAGMA(text) _Pragma(#text)
#define PARALLEL(threads) PRAGMA(omp parallel num_threads(threads))
#define groups_of(size) (((size) + LANES - 1) / LANES)

/* OpenMP's barrier spins for milliseconds: a process that takes one of our cores would stop us for
 * as long at every time step. This one gives the core away soon. */
typedef struct { long arrived, turn; } barrier_t;

INLINE void wait_for_all(barrier_t *b) {
    const long threads = omp_get_num_threads();
    if (threads == 1) return;
    const long turn = __atomic_load_n(&b->turn, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&b->arrived, 1, __ATOMIC_ACQ_REL) == threads) {
        __atomic_store_n(&b->arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&b->turn, turn + 1, __ATOMIC_RELEASE);
        return;
    }
    for (long spins = 0; __atomic_load_n(&b->turn, __ATOMIC_ACQUIRE) == turn; spins++) {
        if (spins > 20000) sched_yield();
#if defined(__x86_64__)
        else __builtin_ia32_pause();
#endif
    }
}

long vector_bytes(void) { return VECTOR_BYTES; }

#define VARIANT f64
#define REAL double
#define OPERAND double
#define INTEGER int64_t
#define DOUBLE
#include "variant.h"
#undef DOUBLE

#define VARIANT f32
#define REAL float
#define OPERAND float
#define INTEGER int32_t
#include "variant.h"

#define VARIANT bf16
#define REAL float
#define OPERAND uint16_t
#define INTEGER int32_t
#define BF16
#include "variant.h"
