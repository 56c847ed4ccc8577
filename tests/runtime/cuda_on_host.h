/* CUDA C++ as C++ of the host: enough for kernels.cu to be compiled by g++ and run on memory of the host, with the
   arguments as cuLaunchKernel gets them. The threads of a block are coroutines: each runs until __syncthreads() or its
   end, then the next one does. So a thread that is ahead of a barrier reads what the others have not written yet. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
using std::min;

struct Index {
    unsigned x, y, z;
};
static thread_local Index threadIdx, blockIdx, blockDim, gridDim;

namespace host {
enum { STACK = 1 << 16 };
struct Thread {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(STACK);
    Index index;
    bool ended;
};
static std::vector<Thread> threads;
static ucontext_t scheduler;
static Thread *running;
static void (*body)(void *);
static void *body_data;

static void enter() {
    body(body_data);
    running->ended = true;
}

template <typename Work> void call(void *work) { (*(Work *)work)(); }

template <typename Work> void run_block(Work work) {
    size_t count = blockDim.x * blockDim.y;
    if (threads.size() < count) threads = std::vector<Thread>(count);
    body = call<Work>;
    body_data = &work;
    for (size_t i = 0; i < count; i++) {
        Thread &one = threads[i];
        one.index = {(unsigned)(i % blockDim.x), (unsigned)(i / blockDim.x), 0};
        one.ended = false;
        getcontext(&one.context);
        one.context.uc_stack.ss_sp = one.stack.data();
        one.context.uc_stack.ss_size = STACK;
        one.context.uc_link = &scheduler;
        makecontext(&one.context, enter, 0);
    }
    for (size_t ended = 0; ended < count;) {
        ended = 0;
        for (size_t i = 0; i < count; i++) {
            running = &threads[i];
            threadIdx = running->index;
            if (!running->ended) swapcontext(&scheduler, &running->context);
            ended += running->ended;
        }
    }
}

template <typename... Types, size_t... I>
void launch(void (*kernel)(Types...), void **arguments, std::index_sequence<I...>) {
    for (blockIdx.y = 0; blockIdx.y < gridDim.y; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++)
            run_block([&] { kernel(*(Types *)arguments[I]...); });
}

template <typename... Types>
int launch(void (*kernel)(Types...), Index grid, Index block, void **arguments) {
    gridDim = grid, blockDim = block, blockIdx = {0, 0, 0};
    launch(kernel, arguments, std::index_sequence_for<Types...>());
    return 0;
}
}  // namespace host

static void __syncthreads() { swapcontext(&host::running->context, &host::scheduler); }
