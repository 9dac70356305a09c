/* All in float64: for tests against numerical derivatives, accurate rather than fast. */

#define REAL double
#define OPERAND double
#define INTEGER int64_t
#define DOUBLE
#include "kernels.h"
