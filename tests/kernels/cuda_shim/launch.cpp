// Runs the CUDA kernels on the host. Blocks run one after the other, their threads at once.
#include "shim.h"

#include <cstdlib>
#include <thread>
#include <vector>

#include "calibrate.cu"
#include "crop.cu"
#include "gradients.cu"
#include "person.cu"

template <class Job>
static int run(void (*kernel)(Job), Dim3 grid, unsigned threads, size_t shared_bytes,
               const void *job, int skip) {
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                // Exactly as large as asked for, and NaN until it is written.
                int4 *shared = static_cast<int4 *>(std::malloc(shared_bytes));
                if (shared_bytes) std::memset(shared, 255, shared_bytes);
                ShimBlock block{std::barrier<>(threads), shared, skip};
                std::vector<std::thread> all;
                for (unsigned t = 0; t < threads; ++t)
                    all.emplace_back([&, t] {
                        threadIdx = {t, 0, 0}, blockIdx = {x, y, z}, blockDim = {threads, 1, 1};
                        gridDim = grid;
                        shim_block = &block;
                        kernel(*static_cast<const Job *>(job));
                    });
                for (std::thread &thread : all) thread.join();
                std::free(shared);
            }
    return 0;
}

extern "C" int shim_launch(const char *name, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                           unsigned threads, size_t shared_bytes, const void *job, int skip) {
    const Dim3 grid = {grid_x, grid_y, grid_z};
    const size_t bytes = shared_bytes * sizeof(pchmr::Real) / sizeof(float);
#define RUN(kernel) \
    if (!std::strcmp(name, #kernel)) return run(kernel, grid, threads, bytes, job, skip)
    RUN(pchmr_calibrate);
    RUN(pchmr_skin_calibrate);
    RUN(pchmr_blend);
    RUN(pchmr_pose_joints);
    RUN(pchmr_crop);
    RUN(pchmr_blend_grad_vertices);
    RUN(pchmr_blend_grad_bones);
    RUN(pchmr_blend_grad_weights);
    RUN(pchmr_person_crops);
    RUN(pchmr_person_landmarks);
    RUN(pchmr_person_points);
    RUN(pchmr_person_projection);
    RUN(pchmr_person_pose);
    RUN(pchmr_person_shape);
    RUN(pchmr_person_place);
    RUN(pchmr_person_lifted);
    RUN(pchmr_person_target);
    return 1;
}

extern "C" size_t shim_job_bytes() { return sizeof(pchmr_cuda_job); }
extern "C" size_t shim_crops_bytes() { return sizeof(pchmr_cuda_crops); }
extern "C" size_t shim_person_bytes() { return sizeof(pchmr_cuda_person); }
extern "C" size_t shim_gradients_bytes() { return sizeof(pchmr_cuda_gradients); }
