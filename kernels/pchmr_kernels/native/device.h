/* What every CUDA kernel stands on. The same text is compiled by NVRTC, by nvcc and, with what stands
 * under PCHMR_SHIM replaced, by the host compiler for the tests.
 */
#ifndef PCHMR_DEVICE_H
#define PCHMR_DEVICE_H

#include "calibration.h"
#include "pchmr_cuda.h"

/* What blends are summed in; the tests of gradients make it double on the host. */
#ifndef PCHMR_REAL
#define PCHMR_REAL float
#endif

#define PCHMR_DEVICE __device__ static inline

namespace pchmr {

typedef PCHMR_REAL Real;

struct alignas(4 * sizeof(Real)) Quad {
    Real x, y, z, w;
};

struct Half {
    unsigned short bits;
};

#ifndef PCHMR_SHIM
#define PCHMR_SHARED(name) extern __shared__ int4 name[]
#define PCHMR_UNROLL _Pragma("unroll")
__device__ static inline float widen(Half h) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(h.bits));
    return wide;
}
__device__ static inline void narrow(float wide, Half &h) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(wide));
}
#endif
PCHMR_DEVICE Real widen(Real x) { return x; }
PCHMR_DEVICE void narrow(Real x, Real &y) { y = x; }

PCHMR_DEVICE double read(pchmr_reals array, int64_t i) {
    return array.is_float64 ? ((const double *)array.data)[i] : ((const float *)array.data)[i];
}

PCHMR_DEVICE Real dot(Quad a, Quad b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
PCHMR_DEVICE void add(Quad &sum, Quad a, Real s) {
    sum.x += s * a.x, sum.y += s * a.y, sum.z += s * a.z, sum.w += s * a.w;
}

}  // namespace pchmr

#endif
