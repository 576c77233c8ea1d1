// The verification kernels as a shared library for the host.
#include "cuda_on_host.h"

#include "../../../kernels/csrc/verify.cu"

#define RAYSPEC_LAUNCH(KERNEL) \
    if (!std::strcmp(name, #KERNEL)) return run_grid(KERNEL, grid, threads, arguments), 0

extern "C" int emulate(const char* name, unsigned x, unsigned y, unsigned threads, void** arguments) {
    const Dim grid = {x, y, 1};
    RAYSPEC_LAUNCH(rayspec_prepare);
    RAYSPEC_LAUNCH(rayspec_read_rows_bfloat16);
    RAYSPEC_LAUNCH(rayspec_read_rows_float16);
    RAYSPEC_LAUNCH(rayspec_read_rows_float32);
    RAYSPEC_LAUNCH(rayspec_resolve_rows_bfloat16);
    RAYSPEC_LAUNCH(rayspec_resolve_rows_float16);
    RAYSPEC_LAUNCH(rayspec_resolve_rows_float32);
    RAYSPEC_LAUNCH(rayspec_combine);
    return 1;
}
