/* A CUDA driver without a GPU: memory of the "GPU" is the host's, a stream runs at once, a graph replays what was
   recorded. Built by test_cuda.py as libcuda.so.1, so that the real cuda-python and PyCUDA can be run against it.
   Every call that needs a context answers 201 (invalid context) where none is pushed on the calling thread. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define NEEDS_CONTEXT if (depth <= 0) return 201
enum { OPERATIONS = 64 };
typedef struct { void *to; const void *from; size_t bytes; int value; } Work; /* from nowhere: filled with value */
typedef struct { int count; Work works[OPERATIONS]; } Graph;
typedef struct { double ms; } Event;

static __thread int depth;                /* contexts pushed on this thread */
static int retained, live, recording, initialised;
static double clock_ms;
static Graph *graph;
static char context_, stream_;            /* their addresses are the handles */

/* For the test: what is still there. */
int fake_live(void) { return live; }
int fake_retained(void) { return retained; }
int fake_depth(void) { return depth; }

int cuInit(unsigned flags) { initialised = 1; return getenv("FAKE_CUDA_INIT") ? atoi(getenv("FAKE_CUDA_INIT")) : 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return initialised ? 0 : 3; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal ? 101 : 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "Fake GPU of C", length); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)1 << 30; return 0; }
int cuDeviceComputeCapability(int *major, int *minor, int device) { *major = 9; *minor = 0; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : 0; /* compute capability 9.0, not integrated (18) */
    return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &context_; retained++; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { retained--; return 0; }
int cuCtxPushCurrent_v2(void *context) { if (context != &context_) return 201; depth++; return 0; }
int cuCtxPopCurrent_v2(void **context) { NEEDS_CONTEXT; depth--; *context = &context_; return 0; }
int cuCtxGetCurrent(void **context) { *context = depth > 0 ? &context_ : 0; return 0; }
int cuCtxGetDevice(int *device) { *device = 0; return 0; }
int cuCtxSynchronize(void) { return 0; }

int cuMemGetInfo_v2(size_t *free_, size_t *total) { NEEDS_CONTEXT; *free_ = 1 << 20; *total = 1 << 30; return 0; }
int cuMemAlloc_v2(unsigned long long *device, size_t bytes) {
    NEEDS_CONTEXT;
    if (bytes > (size_t)1 << 30) return 2; /* out of memory */
    void *memory = malloc(bytes);
    memset(memory, 0xFF, bytes);
    *device = (unsigned long long)(size_t)memory;
    live++;
    return 0;
}
int cuMemFree_v2(unsigned long long device) { NEEDS_CONTEXT; free((void *)(size_t)device); live--; return 0; }
int cuMemHostAlloc(void **host, size_t bytes, unsigned flags) {
    NEEDS_CONTEXT;
    *host = malloc(bytes);
    memset(*host, 0xFF, bytes);
    live++;
    return 0;
}
int cuMemFreeHost(void *host) { NEEDS_CONTEXT; free(host); live--; return 0; }
int cuMemHostGetDevicePointer_v2(unsigned long long *device, void *host, unsigned flags) {
    NEEDS_CONTEXT;
    *device = (unsigned long long)(size_t)host;
    return 0;
}

int cuStreamCreate(void **stream, unsigned flags) { NEEDS_CONTEXT; *stream = &stream_; live++; return flags == 1 ? 0 : 1; }
int cuStreamDestroy_v2(void *stream) { NEEDS_CONTEXT; live--; return 0; }
int cuStreamSynchronize(void *stream) { NEEDS_CONTEXT; return recording ? 900 : 0; }
static void perform(Work one) {
    if (one.from) memcpy(one.to, one.from, one.bytes);
    else memset(one.to, one.value, one.bytes);
}
static int give(Work one) {
    NEEDS_CONTEXT;
    if (recording) graph->works[graph->count++] = one;
    else perform(one);
    return 0;
}
int cuMemcpyHtoDAsync_v2(unsigned long long to, const void *from, size_t bytes, void *stream) {
    return give((Work){(void *)(size_t)to, from, bytes, 0});
}
int cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, size_t bytes, void *stream) {
    return give((Work){to, (const void *)(size_t)from, bytes, 0});
}

/* A module is the words "fake kernels"; its one kernel is fill(char *to, int value, int count) with a thread per byte. */
static char module_, fill_;
int cuModuleLoadData(void **module, const void *image) {
    NEEDS_CONTEXT;
    if (strcmp(image, "fake kernels")) return 200; /* invalid image */
    *module = &module_;
    live++;
    return 0;
}
int cuModuleUnload(void *module) { NEEDS_CONTEXT; live--; return module == &module_ ? 0 : 1; }
int cuModuleGetFunction(void **function, void *module, const char *name) {
    NEEDS_CONTEXT;
    if (module != &module_ || strcmp(name, "fill")) return 500; /* not found */
    *function = &fill_;
    return 0;
}
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **arguments, void **extra) {
    NEEDS_CONTEXT;
    if (function != &fill_ || stream != &stream_ || gz != 1 || bz != 1 || shared || !arguments || extra) return 1;
    int count = *(int *)arguments[2];
    if ((unsigned)count != gx * gy * bx * by || gx != 2 || gy != 3 || bx != 4 || by != 1) return 1;
    return give((Work){*(void **)arguments[0], 0, count, *(int *)arguments[1]});
}

int cuEventCreate(void **event, unsigned flags) { NEEDS_CONTEXT; *event = calloc(1, sizeof(Event)); live++; return 0; }
int cuEventDestroy_v2(void *event) { NEEDS_CONTEXT; free(event); live--; return 0; }
int cuEventRecord(void *event, void *stream) { NEEDS_CONTEXT; ((Event *)event)->ms = clock_ms; clock_ms += 2.5; return 0; }
int cuEventSynchronize(void *event) { return 0; }
int cuEventElapsedTime(float *ms, void *start, void *end) {
    *ms = (float)(((Event *)end)->ms - ((Event *)start)->ms);
    return 0;
}
int cuEventElapsedTime_v2(float *ms, void *start, void *end) { return cuEventElapsedTime(ms, start, end); }

int cuStreamBeginCapture_v2(void *stream, int mode) {
    NEEDS_CONTEXT;
    if (mode != 1) return 1; /* this thread only */
    graph = calloc(1, sizeof(Graph));
    recording = 1;
    return 0;
}
int cuStreamEndCapture(void *stream, void **made) { NEEDS_CONTEXT; recording = 0; *made = graph; live++; return 0; }
int cuGraphInstantiateWithFlags(void **ready, void *made, unsigned long long flags) {
    NEEDS_CONTEXT;
    *ready = malloc(sizeof(Graph));
    memcpy(*ready, made, sizeof(Graph));
    live++;
    return 0;
}
int cuGraphDestroy(void *made) { free(made); live--; return 0; }
int cuGraphExecDestroy(void *ready) { free(ready); live--; return 0; }
int cuGraphLaunch(void *ready, void *stream) {
    NEEDS_CONTEXT;
    for (int i = 0; i < ((Graph *)ready)->count; i++) {
        perform(((Graph *)ready)->works[i]);
    }
    return 0;
}

int cuGetErrorName(int code, const char **text) {
    *text = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : code == 100 ? "CUDA_ERROR_NO_DEVICE"
          : code == 201 ? "CUDA_ERROR_INVALID_CONTEXT" : "CUDA_ERROR_UNKNOWN";
    return 0;
}
int cuGetErrorString(int code, const char **text) {
    *text = code == 2 ? "out of memory" : code == 100 ? "no CUDA-capable device is detected"
          : code == 200 ? "device kernel image is invalid"
          : code == 201 ? "invalid device context" : "unknown error";
    return 0;
}

/* cuda-python asks for every function here, by its name without the number of its version. */
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *status) {
    static const char *const endings[] = {"", "_v2", "WithFlags"};
    char full[128];
    *function = 0;
    for (size_t i = 0; i < 3 && !*function && strlen(name) < 100; i++)
        *function = dlsym(RTLD_DEFAULT, strcat(strcpy(full, name), endings[i]));
    if (!*function) { /* loaded without RTLD_GLOBAL */
        void *self = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
        for (size_t i = 0; i < 3 && !*function && strlen(name) < 100 && self; i++)
            *function = dlsym(self, strcat(strcpy(full, name), endings[i]));
    }
    if (status) *status = *function ? 0 : 1;
    return *function ? 0 : 500; /* not found */
}
int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags) {
    return cuGetProcAddress_v2(name, function, version, flags, 0);
}
