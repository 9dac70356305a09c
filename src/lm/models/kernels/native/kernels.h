/* The loops over time that Python and single torch operations are too slow for, and the softmax loss
 * with its products. Compiled on the machine where they run, for its instruction set
 * (lm.runtime.native); lm.models.kernels.native_cells, native_loss, native_gemm, native_softmax and
 * native_assess call them.
 *
 * Each function takes one structure. There is a library for each choice of REAL, the type of state,
 * sums and point-wise arithmetic, OPERAND, that of the operands of products, and INTEGER, as wide as
 * REAL: f64.c, f32.c and bf16.c. Only those that a run needs are compiled.
 *
 * Every result is written by one thread, its terms added in an order that does not depend on the
 * number of threads; only softmax's d_bias comes in one part per thread. The bias gradients of cells
 * come in one part per tile of streams.
 */

#include "common.h"
#include "vectors.h"
#include "product.h"
#include "lstm.h"
#include "gru.h"
#include "rnn.h"
#include "gemm.h"
#include "softmax.h"
#include "assess.h"
#include "loss.h"

/* Numbers of REAL in one vector, and streams that are computed together at the most. */
long lanes(void) { return LANES; }
long tile_rows(void) { return ROWS; }
