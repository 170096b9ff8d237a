#include "dispatch.h"

#include <atomic>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace layercast {
namespace {

std::atomic<const Kernels*>& active() {
  static std::atomic<const Kernels*> table{available_kernels().front()};
  return table;
}

#if defined(__x86_64__)
// Conversions of binary16; not every compiler's __builtin_cpu_supports knows the name.
bool has_f16c() {
  unsigned int a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

}  // namespace

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> tables;
#if defined(LAYERCAST_HAS_AVX512)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma") && has_f16c()) {
    tables.push_back(&avx512::kernels());
  }
#endif
#if defined(LAYERCAST_HAS_AVX2)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) {
    tables.push_back(&avx2::kernels());
  }
#endif
#if defined(LAYERCAST_HAS_NEON)
  tables.push_back(&neon::kernels());
#endif
  tables.push_back(&scalar::kernels());
  return tables;
}

const Kernels& active_kernels() { return *active().load(std::memory_order_relaxed); }

bool select_kernels(const char* name) {
  for (const Kernels* table : available_kernels()) {
    if (strcmp(table->name, name) == 0) {
      active().store(table, std::memory_order_relaxed);
      return true;
    }
  }
  return false;
}

}  // namespace layercast
