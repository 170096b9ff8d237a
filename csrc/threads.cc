#include "threads.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "float_control.h"

namespace layercast {
namespace {

// A job and what is left of it. Each thread begins with an even share and takes it in order, half of what is left of it
// at a time, so that what it asked memory for at the end of one range is what it needs in the next. When done it takes
// the later half of the largest share left: a slow core holds up a small range at most.
class Job {
 public:
  Job(RangeFunction function, const void* context, int64_t units, int64_t grain, int threads)
      : function_(function), context_(context), units_(units), grain_(grain), shares_(shares_for(threads)) {
    int64_t pieces = pieces_of(grain_);
    if (pieces > UINT32_MAX) {
      grain_ *= pieces / UINT32_MAX + 1;
      pieces = pieces_of(grain_);
    }
    for (int i = 0; i < shares_; ++i) {
      left_[i].range.store(packed(pieces * i / shares_, pieces * (i + 1) / shares_), std::memory_order_relaxed);
    }
  }

  // What each of the threads calls, once.
  void work() {
    const FloatControl control;
    std::atomic<uint64_t>& own = left_[joined_.fetch_add(1, std::memory_order_relaxed) % shares_].range;
    for (uint64_t stolen; finish(own), steal(stolen);) {
      // Another thread's already, where there are more threads than shares.
      uint64_t seen = own.load(std::memory_order_relaxed);
      if (size(seen) > 0 || !own.compare_exchange_strong(seen, stolen, std::memory_order_relaxed)) run(stolen);
    }
  }

 private:
  // Pieces [begin, end) of `grain` units, in one word.
  static uint64_t packed(int64_t begin, int64_t end) {
    return static_cast<uint64_t>(begin) << 32 | static_cast<uint64_t>(end);
  }
  static int64_t begin(uint64_t range) { return static_cast<int64_t>(range >> 32); }
  static int64_t end(uint64_t range) { return static_cast<int64_t>(range & UINT32_MAX); }
  static int64_t size(uint64_t range) { return end(range) - begin(range); }

  static int shares_for(int threads) { return threads < kMostShares ? threads : kMostShares; }
  int64_t pieces_of(int64_t grain) const { return (units_ + grain - 1) / grain; }

  void run(uint64_t range) const {
    const int64_t last = end(range) * grain_;
    function_(context_, begin(range) * grain_, last < units_ ? last : units_);
  }

  void finish(std::atomic<uint64_t>& share) const {
    uint64_t left = share.load(std::memory_order_relaxed);
    while (size(left) > 0) {
      const int64_t middle = begin(left) + (size(left) + 1) / 2;
      if (!share.compare_exchange_weak(left, packed(middle, end(left)), std::memory_order_relaxed)) continue;
      run(packed(begin(left), middle));
      left = share.load(std::memory_order_relaxed);
    }
  }

  // The later half of the largest share left; false if none is.
  bool steal(uint64_t& stolen) {
    for (;;) {
      int victim = 0;
      uint64_t most = 0;
      for (int i = 0; i < shares_; ++i) {
        const uint64_t left = left_[i].range.load(std::memory_order_relaxed);
        if (size(left) > size(most)) victim = i, most = left;
      }
      if (size(most) == 0) return false;
      const int64_t middle = begin(most) + size(most) / 2;
      stolen = packed(middle, end(most));
      // No range returns once taken, so an equal one is the one that was seen.
      if (left_[victim].range.compare_exchange_weak(most, packed(begin(most), middle), std::memory_order_relaxed)) {
        return true;
      }
    }
  }

  static constexpr int kMostShares = 64;
  // A line each: threads must not wait for one another's.
  struct alignas(64) Share {
    std::atomic<uint64_t> range;
  };

  RangeFunction function_;
  const void* context_;
  int64_t units_, grain_;
  int shares_;
  std::atomic<int> joined_{0};
  Share left_[kMostShares];
};

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// How often to look for work before going to sleep: some hundreds of microseconds, longer than the gaps between two
// kernels of a model. Waking takes tens, a good part of what a kernel takes at decode.
constexpr int kIdleSpins = 4000;
// And for the others at the end of a job, who are computing their last range: they are a few milliseconds off at most.
constexpr int kFinishSpins = 100000;

// Looks for `ready` so many times; false if it never came.
template <class Ready>
bool spin_until(const Ready& ready, int times) {
  for (int i = 0; i < times; ++i) {
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
      while (workers_ < helpers) add_worker();
      keep_off_callers_core();
      spin_.store(spin, std::memory_order_relaxed);
      job_ = &job;
      helpers_ = helpers;
      unfinished_.store(helpers, std::memory_order_relaxed);
      generation_.fetch_add(1, std::memory_order_release);
    }
    start_.notify_all();
    job.work();
    const auto finished = [this] { return unfinished_.load(std::memory_order_acquire) == 0; };
    if (spin && spin_until(finished, kFinishSpins)) return;
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, finished);
  }

  bool try_enter() { return !busy_.test_and_set(std::memory_order_acquire); }
  void leave() { busy_.clear(std::memory_order_release); }

 private:
  void add_worker() {
    sched_getaffinity(0, sizeof cores_, &cores_);
    std::thread worker([this, index = workers_] { serve(index); });
    handles_.push_back(worker.native_handle());
    worker.detach();
    ++workers_;
    caller_core_ = -1;
  }

  // A worker woken from sleep is often put on its waker's core and stays there as long as both of them wait now and
  // then: they take turns on one core while another is idle. So workers run where the caller does not.
  void keep_off_callers_core() {
    const int core = sched_getcpu();
    if (core < 0 || core == caller_core_) return;
    caller_core_ = core;
    cpu_set_t others;
    if (sched_getaffinity(0, sizeof others, &others) != 0) return;
    CPU_CLR(core, &others);
    // A caller bound to one core: workers have the cores they began with.
    const cpu_set_t& chosen = CPU_COUNT(&others) > 0 ? others : cores_;
    for (const pthread_t worker : handles_) pthread_setaffinity_np(worker, sizeof chosen, &chosen);
  }

  void serve(int index) {
    uint64_t seen = 0;
    for (;;) {
      const auto fresh = [&] { return generation_.load(std::memory_order_acquire) != seen; };
      if (spin_.load(std::memory_order_relaxed)) spin_until(fresh, kIdleSpins);
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
  std::vector<pthread_t> handles_;
  cpu_set_t cores_{};  // where the caller could run when the last worker was made
  int caller_core_ = -1;
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

// The entry of GNU OpenMP's parallel regions (other OpenMP libraries have it too): function(data) on `threads` threads.
using OpenMpRegion = void (*)(void (*function)(void*), void* data, unsigned threads, unsigned flags);
OpenMpRegion openmp_region = nullptr;

bool forked = false;

// A forked child has the parent's memory and none of its threads: it starts a pool of its own, the old one is left.
// OpenMP would wait for the threads that are gone.
void forget_threads() {
  forked = true;
  pool = new Pool;
  openmp_region = nullptr;
}

// From the start: torch's threads may be there, and be lost in a fork, before the first kernel is called.
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, forget_threads);

// Torch computes on OpenMP threads, which go on spinning for milliseconds after each of its operations; threads of ours
// beside them would share their cores with them. So where the process has OpenMP, its threads are ours. The symbol is
// looked up, not linked: which OpenMP it is, and whether there is one, is the caller's affair.
void find_threads() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (forked) return;
    pool = new Pool;
    openmp_region = reinterpret_cast<OpenMpRegion>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  });
}

// The job on up to `threads` threads, the caller's among them; false if a pool's are all taken.
bool run_on_threads(Job& job, int parts, int threads) {
  find_threads();
  if (openmp_region != nullptr) {
    // All of them, if the job is for fewer too: OpenMP ends the threads a smaller region leaves out.
    openmp_region([](void* data) { static_cast<Job*>(data)->work(); }, &job, static_cast<unsigned>(threads), 0);
    return true;
  }
  const PoolLease lease(*pool);
  if (lease.get() == nullptr) return false;
  lease.get()->run(job, parts - 1);
  return true;
}

}  // namespace

void run_ranges(int threads, int64_t units, int64_t grain, RangeFunction f, const void* context) {
  if (units <= 0) return;
  const int64_t grains = (units + grain - 1) / grain;
  const int parts = static_cast<int>(grains < threads ? grains : threads);
  if (parts > 1) {
    Job job(f, context, units, grain, parts);
    if (run_on_threads(job, parts, threads)) return;
  }
  const FloatControl control;
  f(context, 0, units);
}

}  // namespace layercast
