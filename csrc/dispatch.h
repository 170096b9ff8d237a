// Which instruction set's kernels run.
#pragma once

#include <vector>

#include "kernels.h"

namespace layercast {

// The tables this build has and this processor can run, best first; never empty.
std::vector<const Kernels*> available_kernels();

// The table in use: the best available until `select_kernels` says otherwise.
const Kernels& active_kernels();

// False where no available table has that name.
bool select_kernels(const char* name);

}  // namespace layercast
