#include "threads.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "float_control.h"

namespace layercast {
namespace {

struct Job {
  RangeFunction function;
  const void* context;
  int64_t units, grain;
  int parts;
};

// Part `part` of a job: grains split as evenly as they go.
void run_part(const Job& job, int part) {
  const int64_t grains = (job.units + job.grain - 1) / job.grain;
  const int64_t begin = grains * part / job.parts * job.grain;
  int64_t end = grains * (part + 1) / job.parts * job.grain;
  if (end > job.units) end = job.units;
  if (begin >= end) return;
  const FloatControl control;
  job.function(job.context, begin, end);
}

// Workers that sleep between jobs. Never destroyed: a worker may be waiting when the process ends.
class Pool {
 public:
  void run(const Job& job) {
    const int helpers = job.parts - 1;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      while (workers_ < helpers) {
        std::thread([this, index = workers_] { work(index); }).detach();
        ++workers_;
      }
      job_ = job;
      helpers_ = helpers;
      unfinished_ = helpers;
      ++generation_;
    }
    start_.notify_all();
    run_part(job, 0);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return unfinished_ == 0; });
  }

  bool try_enter() { return !busy_.test_and_set(std::memory_order_acquire); }
  void leave() { busy_.clear(std::memory_order_release); }

 private:
  void work(int index) {
    uint64_t seen = 0;
    for (;;) {
      Job job;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        start_.wait(lock, [&] { return generation_ != seen; });
        seen = generation_;
        if (index >= helpers_) continue;
        job = job_;
      }
      run_part(job, index + 1);
      const std::lock_guard<std::mutex> lock(mutex_);
      if (--unfinished_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable start_, done_;
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  Job job_{};
  int helpers_ = 0, unfinished_ = 0, workers_ = 0;
  uint64_t generation_ = 0;
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
  const int64_t grains = (units + grain - 1) / grain;
  const int parts = static_cast<int>(grains < threads ? grains : threads);
  if (parts > 1) {
    Pool& shared = the_pool();
    if (shared.try_enter()) {
      shared.run({f, context, units, grain, parts});
      shared.leave();
      return;
    }
  }
  if (units > 0) run_part({f, context, units, grain, 1}, 0);
}

}  // namespace layercast
