// As much of CUDA as the kernels need, on the host: one thread a CUDA thread, one block at a time.
// Not modelled: warps, memory spaces, rounding of the device's own functions. Included first.
#pragma once
#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstring>

#define PCHMR_SHIM
#define __CUDACC__ 1
#define __host__
#define __device__
#define __global__
#define __launch_bounds__(...)

struct alignas(16) int4 {
    int x, y, z, w;
};
struct Dim3 {
    unsigned x, y, z;
};

inline thread_local Dim3 threadIdx, blockIdx, blockDim, gridDim;

// The block that a thread belongs to. Each thread counts its barriers, and passes number `skip`
// without waiting: a barrier that the source lacks.
struct ShimBlock {
    std::barrier<> barrier;
    int4 *shared;
    int skip;
};
inline thread_local ShimBlock *shim_block;
inline thread_local int shim_barriers;

inline void __syncthreads() {
    if (shim_barriers++ != shim_block->skip) shim_block->barrier.arrive_and_wait();
}
#define PCHMR_SHARED(name) int4 *name = shim_block->shared
#define PCHMR_UNROLL

namespace pchmr {

// FP16 as IEEE 754 says, to nearest, ties to even.
template <class Half>
float widen(Half h) {
    const int exponent = h.bits >> 10 & 31, fraction = h.bits & 1023;
    const float size = exponent == 0    ? std::ldexp(float(fraction), -24)
                       : exponent == 31 ? (fraction ? NAN : INFINITY)
                                        : std::ldexp(float(1024 + fraction), exponent - 25);
    return h.bits >> 15 ? -size : size;
}
template <class Half>
void narrow(float wide, Half &h) {
    const unsigned sign = std::signbit(wide) ? 0x8000 : 0;
    const float size = std::fabs(wide);
    if (std::isnan(wide)) {
        h.bits = 0x7e00;
    } else if (size >= 65520) {  // half way to the number after the largest
        h.bits = sign | 0x7c00;
    } else {
        int exponent;
        std::frexp(size, &exponent);
        exponent = size < 0x1p-14f ? -13 : exponent;  // subnormals share the smallest exponent
        const int steps = int(std::nearbyint(std::ldexp(size, 11 - exponent)));
        h.bits = sign | (size == 0 ? 0 : ((exponent + 13) << 10) + steps);
    }
}

}  // namespace pchmr
