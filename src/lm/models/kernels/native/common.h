/* What all kernels share: the machine they run on, and how its threads share the work. */

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

/* Bytes, with room for what streams by: cores have 512 KiB and more. */
#define SECOND_CACHE (400 << 10)

/* Groups of words whose exponentials are summed together: thousands of words, tens of blocks. */
#define BLOCK_GROUPS 32

enum { TANH, RELU, SIGMOID };

INLINE long at_most(long a, long b) { return a < b ? a : b; }

/* The first of the fewest parts of `left`, each at most `most` and all as even as possible. */
INLINE long even_part(long left, long most) {
    const long parts = (left + most - 1) / most;
    return (left + parts - 1) / parts;
}

/* Rows of the tile at row b. */
INLINE long rows_at(long b, long rows) { return even_part(rows - b, ROWS); }

typedef struct { long begin, end; } range;

INLINE long thread(void) { return omp_get_thread_num(); }

/* This thread's part of `count`. There may be fewer threads than were asked for. */
INLINE range share_of(long count) {
    const long threads = omp_get_num_threads();
    return (range){count * thread() / threads, count * (thread() + 1) / threads};
}

/* A thread's part of a window: groups of units, and streams by the tiles of rows that they come in. */
typedef struct {
    int by_streams;
    range units, tiles, streams;
} part_t;

INLINE long tiles_of(long rows) { return (rows + ROWS - 1) / ROWS; }

INLINE long tile_begin(long tile, long rows) {
    long b = 0;
    while (tile-- > 0) b += rows_at(b, rows);
    return b;
}

/* Usually each thread has some units of all streams, and waits for the others' at every step. Where
 * the recurrent matrix fits into a core's second cache, and the streams are enough, it has all units
 * of some streams, and waits for nobody. */
INLINE part_t part_of(long groups, long streams, long matrix_bytes) {
    const long threads = omp_get_num_threads(), tiles = tiles_of(streams);
    const long most_groups = (groups + threads - 1) / threads;
    const long most_tiles = (tiles + threads - 1) / threads;
    if (matrix_bytes > SECOND_CACHE || most_tiles * groups > most_groups * tiles)
        return (part_t){0, share_of(groups), {0, tiles}, {0, streams}};
    const range mine = share_of(tiles);
    return (part_t){
        1, {0, groups}, mine, {tile_begin(mine.begin, streams), tile_begin(mine.end, streams)},
    };
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
