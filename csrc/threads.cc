#include "threads.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "float_control.h"

namespace layercast {
namespace {

// A job and what is left of it. Threads take pieces as they come, so that a slow core holds up one piece at most.
struct Job {
  RangeFunction function;
  const void* context;
  int64_t units, grain, pieces;
  std::atomic<int64_t> next{0};

  // Grains are dealt to the pieces as evenly as they go; every unit lies in one piece.
  void run_piece(int64_t piece) const {
    const int64_t grains = (units + grain - 1) / grain;
    const int64_t begin = grains * piece / pieces * grain;
    int64_t end = grains * (piece + 1) / pieces * grain;
    if (end > units) end = units;
    if (begin < end) function(context, begin, end);
  }

  void work() {
    const FloatControl control;
    for (int64_t piece; (piece = next.fetch_add(1, std::memory_order_relaxed)) < pieces;) run_piece(piece);
  }
};

constexpr int64_t kPiecesPerThread = 4;

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Waits for `ready` for some tens of microseconds, the usual gap between two kernels of a model; false if it never
// came.
template <class Ready>
bool spin_until(const Ready& ready) {
  for (int i = 0; i < 1000; ++i) {
    if (ready()) return true;
    pause();
  }
  return ready();
}

// Workers that spin briefly between jobs, then sleep. Never destroyed: one may be waiting when the process ends.
class Pool {
 public:
  // Runs the job on the caller and `helpers` workers. Only one thread at a time may be inside.
  void run(Job& job, int helpers) {
    const bool spin = helpers < static_cast<int>(std::thread::hardware_concurrency());
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      while (workers_ < helpers) {
        std::thread([this, index = workers_] { serve(index); }).detach();
        ++workers_;
      }
      spin_.store(spin, std::memory_order_relaxed);
      job_ = &job;
      helpers_ = helpers;
      unfinished_.store(helpers, std::memory_order_relaxed);
      generation_.fetch_add(1, std::memory_order_release);
    }
    start_.notify_all();
    job.work();
    const auto finished = [this] { return unfinished_.load(std::memory_order_acquire) == 0; };
    if (spin && spin_until(finished)) return;
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, finished);
  }

  bool try_enter() { return !busy_.test_and_set(std::memory_order_acquire); }
  void leave() { busy_.clear(std::memory_order_release); }

 private:
  void serve(int index) {
    uint64_t seen = 0;
    for (;;) {
      const auto fresh = [&] { return generation_.load(std::memory_order_acquire) != seen; };
      if (spin_.load(std::memory_order_relaxed)) spin_until(fresh);
      Job* job;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        start_.wait(lock, fresh);
        seen = generation_.load(std::memory_order_relaxed);
        if (index >= helpers_) continue;
        job = job_;
      }
      job->work();
      const std::lock_guard<std::mutex> lock(mutex_);
      if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable start_, done_;
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  std::atomic<bool> spin_{true};
  std::atomic<uint64_t> generation_{0};
  std::atomic<int> unfinished_{0};
  Job* job_ = nullptr;
  int helpers_ = 0, workers_ = 0;
};

// The pool in use by the calling thread, given back at the end of the scope, whatever ends it.
class PoolLease {
 public:
  explicit PoolLease(Pool& pool) : pool_(pool.try_enter() ? &pool : nullptr) {}
  ~PoolLease() {
    if (pool_ != nullptr) pool_->leave();
  }
  PoolLease(const PoolLease&) = delete;
  PoolLease& operator=(const PoolLease&) = delete;
  Pool* get() const { return pool_; }

 private:
  Pool* pool_;
};

Pool* pool = nullptr;

// A forked child has the parent's memory and none of its threads: it starts a pool of its own, the old one is left.
void forget_pool() { pool = new Pool; }

Pool& the_pool() {
  static std::once_flag once;
  std::call_once(once, [] {
    pool = new Pool;
    pthread_atfork(nullptr, nullptr, forget_pool);
  });
  return *pool;
}

}  // namespace

void run_ranges(int threads, int64_t units, int64_t grain, RangeFunction f, const void* context) {
  if (units <= 0) return;
  const int64_t grains = (units + grain - 1) / grain;
  const int parts = static_cast<int>(grains < threads ? grains : threads);
  Job job = {f, context, units, grain, 1};
  if (parts > 1) {
    const PoolLease lease(the_pool());
    if (lease.get() != nullptr) {
      job.pieces = grains < parts * kPiecesPerThread ? grains : parts * kPiecesPerThread;
      lease.get()->run(job, parts - 1);
      return;
    }
  }
  job.work();
}

}  // namespace layercast
