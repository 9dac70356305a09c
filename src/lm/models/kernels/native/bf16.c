/* Operands of products in bf16; state, sums and point-wise arithmetic in float32. */

#define REAL float
#define OPERAND uint16_t
#define INTEGER int32_t
#define BF16
#include "kernels.h"
