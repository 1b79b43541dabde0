#include "tests/emulated_cuda/grid.hpp"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated_cuda {
namespace {

constexpr std::size_t kStackBytes = 128u << 10;

[[noreturn]] void give_up(const char* why) {
  std::fprintf(stderr, "emulated CUDA: %s\n", why);
  std::abort();
}

// --- threads of a block, as contexts that take turns ---

enum class Where { running, at_warp, at_block, done };

struct Warp {
  std::uint64_t values[2][32];  // two exchanges in turn: a lane is at most one ahead
};

struct Thread {
  // A thread begins in a context. After that it jumps, which needs no call of the system.
  ucontext_t context;
  jmp_buf place;
  bool begun = false;
  std::vector<char> stack = std::vector<char>(kStackBytes);
  Where where = Where::done;
  unsigned number = 0;
  unsigned exchanges = 0;
  Warp* warp = nullptr;
};

jmp_buf scheduler;
Thread* current = nullptr;
const std::function<void()>* body = nullptr;
std::vector<std::unique_ptr<Thread>> threads;
alignas(16) char shared_memory[kMostShared];

void wait_at(Where where) {
  current->where = where;
  if (_setjmp(current->place) == 0) _longjmp(scheduler, 1);
}

void run_bodies() {
  for (;;) {
    (*body)();
    wait_at(Where::done);
  }
}

Thread& thread_of(unsigned number) {
  while (threads.size() <= number) {
    auto thread = std::make_unique<Thread>();
    getcontext(&thread->context);
    thread->context.uc_stack.ss_sp = thread->stack.data();
    thread->context.uc_stack.ss_size = kStackBytes;
    thread->context.uc_link = nullptr;
    makecontext(&thread->context, run_bodies, 0);
    threads.push_back(std::move(thread));
  }
  return *threads[number];
}

void resume(Thread& thread) {
  current = &thread;
  thread.where = Where::running;
  threadIdx = dim3(thread.number);
  if (_setjmp(scheduler) != 0) return;
  if (thread.begun) _longjmp(thread.place, 1);
  thread.begun = true;
  setcontext(&thread.context);
}

// Lets threads go on that wait for no other; false if there are none.
bool release(unsigned count) {
  bool any = false;
  unsigned at_block = 0;
  unsigned done = 0;
  for (unsigned first = 0; first < count; first += 32) {
    const unsigned last = std::min(first + 32, count);
    unsigned at_warp = 0;
    for (unsigned i = first; i < last; ++i) {
      at_warp += threads[i]->where == Where::at_warp ? 1 : 0;
      at_block += threads[i]->where == Where::at_block ? 1 : 0;
      done += threads[i]->where == Where::done ? 1 : 0;
    }
    // The masks in use name all lanes.
    if (at_warp != 32) continue;
    for (unsigned i = first; i < last; ++i) threads[i]->where = Where::running;
    any = true;
  }
  if (!any && at_block != 0 && at_block + done == count) {
    for (unsigned i = 0; i < count; ++i) {
      if (threads[i]->where == Where::at_block) threads[i]->where = Where::running;
    }
    any = true;
  }
  return any;
}

void run_block(unsigned count, std::mt19937& random) {
  static std::vector<Warp> warps(32);
  std::vector<unsigned> order(count);
  for (unsigned i = 0; i < count; ++i) {
    order[i] = i;
    Thread& thread = thread_of(i);
    thread.where = Where::running;
    thread.number = i;
    thread.exchanges = 0;
    thread.warp = &warps[i / 32];
  }
  std::shuffle(order.begin(), order.end(), random);
  do {
    for (const unsigned i : order) {
      if (threads[i]->where == Where::running) resume(*threads[i]);
    }
  } while (release(count));
  for (unsigned i = 0; i < count; ++i) {
    if (threads[i]->where != Where::done) give_up("some threads wait for others that never come");
  }
}

}  // namespace

void run_grid(const cudaLaunchConfig_t& config, const std::function<void()>& thread) {
  static std::mt19937 random(0);
  body = &thread;
  gridDim = config.gridDim;
  blockDim = config.blockDim;
  std::vector<dim3> blocks;
  for (unsigned z = 0; z < gridDim.z; ++z) {
    for (unsigned y = 0; y < gridDim.y; ++y) {
      for (unsigned x = 0; x < gridDim.x; ++x) blocks.emplace_back(x, y, z);
    }
  }
  std::shuffle(blocks.begin(), blocks.end(), random);
  for (const dim3& block : blocks) {
    blockIdx = block;
    std::memset(shared_memory, 0xa5, config.dynamicSmemBytes);
    run_block(blockDim.x, random);
  }
}

void* dynamic_shared() { return shared_memory; }
void wait_for_block() { wait_at(Where::at_block); }

const std::uint64_t* exchange(std::uint64_t value) {
  std::uint64_t* const values = current->warp->values[current->exchanges++ % 2];
  values[current->number % 32] = value;
  wait_at(Where::at_warp);
  return values;
}

}  // namespace emulated_cuda
