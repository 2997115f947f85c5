// Runs the kernels of calibrate.cu on the host. Blocks run one after the other, their threads at once.
#include "shim.h"

#include <cstdlib>
#include <thread>
#include <vector>

#include "calibrate.cu"

extern "C" int shim_launch(const char *name, unsigned grid_x, unsigned grid_y, unsigned threads,
                           size_t shared_bytes, const pchmr_cuda_job *job, int skip) {
    void (*kernel)(pchmr_cuda_job) = nullptr;
    if (!std::strcmp(name, "pchmr_calibrate")) kernel = pchmr_calibrate;
    if (!std::strcmp(name, "pchmr_blend")) kernel = pchmr_blend;
    if (!kernel) return 1;
    for (unsigned y = 0; y < grid_y; ++y) {
        for (unsigned x = 0; x < grid_x; ++x) {
            // Exactly as large as asked for, and NaN until it is written.
            float4 *shared = static_cast<float4 *>(std::malloc(shared_bytes));
            std::memset(shared, 255, shared_bytes);
            ShimBlock block{std::barrier<>(threads), shared, skip};
            std::vector<std::thread> all;
            for (unsigned t = 0; t < threads; ++t)
                all.emplace_back([&, t] {
                    threadIdx = {t, 0}, blockIdx = {x, y}, blockDim = {threads, 1};
                    gridDim = {grid_x, grid_y};
                    shim_block = &block;
                    kernel(*job);
                });
            for (std::thread &thread : all) thread.join();
            std::free(shared);
        }
    }
    return 0;
}

extern "C" size_t shim_job_bytes() { return sizeof(pchmr_cuda_job); }
