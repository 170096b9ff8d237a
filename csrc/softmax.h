// Softmax and log_softmax of rows on several threads: rows are shared out, or the shards of a long row.
#pragma once

#include "kernels.h"

namespace layercast {

// The largest element of a row from those of its blocks: NaN where there is one.
float largest_of(const float* maxima, int64_t blocks);

void softmax(const RowArgs& args, int threads);
void log_softmax(const RowArgs& args, int threads);

}  // namespace layercast
