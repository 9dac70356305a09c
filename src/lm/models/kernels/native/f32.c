/* All in float32. */

#define REAL float
#define OPERAND float
#define INTEGER int32_t
#include "kernels.h"
