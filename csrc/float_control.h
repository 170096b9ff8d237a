// The floating-point control word for the length of a kernel: round to nearest even, subnormals kept, nothing trapped.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace layercast {

// Sets the contract's control word and puts the thread's own back at the end of the scope.
class FloatControl {
 public:
  FloatControl() : saved_(read()) { write(kContract); }
  ~FloatControl() { write(saved_); }
  FloatControl(const FloatControl&) = delete;
  FloatControl& operator=(const FloatControl&) = delete;

 private:
#if defined(__x86_64__)
  using Word = uint32_t;
  static constexpr Word kContract = 0x1f80;  // every exception masked; rounding, FTZ and DAZ bits zero
  static Word read() { return _mm_getcsr(); }
  static void write(Word word) { _mm_setcsr(word); }
#elif defined(__aarch64__)
  using Word = uint64_t;
  static constexpr Word kContract = 0;
  static Word read() {
    Word word;
    __asm__ volatile("mrs %0, fpcr" : "=r"(word));
    return word;
  }
  static void write(Word word) { __asm__ volatile("msr fpcr, %0" : : "r"(word) : "memory"); }
#else
#error "the floating-point control word of this architecture is not known"
#endif
  Word saved_;
};

}  // namespace layercast
