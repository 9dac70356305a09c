/* All functions for one choice of VARIANT, REAL, OPERAND and INTEGER. */

#include "vectors.h"
#include "product.h"
#include "lstm.h"
#include "gru.h"
#include "rnn.h"
#include "softmax.h"

#undef vec
#undef mask
#undef all
#undef select
#undef first
#undef load
#undef store
#undef load_operand
#undef store_operand
#undef LARGEST
#undef exp_minus_one
#undef exp_of_negative
#undef sigmoid
#undef hyperbolic
#undef PAIR
#undef group_size
#undef pack_rows
#undef pack_columns
#undef TILE
#undef TILES
#undef multiply
#undef add_to_bias
#undef VARIANT
#undef REAL
#undef OPERAND
#undef INTEGER
