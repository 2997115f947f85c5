// Crops of a frame that is on the GPU: colour conversion, warp and resize in one launch, bilinear and
// with the borders of OpenCV's warpAffine. Affines are read from the device, so that the regions of a
// tracked person need no host.
#include "device.h"
#include "pchmr_cuda_crop.h"

namespace pchmr {

struct Colour {
    float r, g, b;
};

PCHMR_DEVICE int byte(int x) { return x < 0 ? 0 : x > 255 ? 255 : x; }

// BT.601 of limited range in OpenCV's integers; a pair of chroma serves four pixels.
PCHMR_DEVICE Colour from_nv12(int luma, int u, int v) {
    const int y = (luma > 16 ? luma - 16 : 0) * 1220542 + (1 << 19);
    u -= 128, v -= 128;
    return {(float)byte((y + 1673527 * v) >> 20),
            (float)byte((y - 409993 * u - 852492 * v) >> 20),
            (float)byte((y + 2116026 * u) >> 20)};
}

PCHMR_DEVICE Colour pixel(const pchmr_cuda_crops &job, int x, int y) {
    if (job.extend) {
        x = x < 0 ? 0 : x < job.width ? x : job.width - 1;
        y = y < 0 ? 0 : y < job.height ? y : job.height - 1;
    } else if (x < 0 || y < 0 || x >= job.width || y >= job.height) {
        return {0, 0, 0};
    }
    const uint8_t *row = job.frame + y * job.pitch;
    if (!job.chroma) return {(float)row[3 * x + 2], (float)row[3 * x + 1], (float)row[3 * x]};
    const uint8_t *uv = job.chroma + (y >> 1) * job.chroma_pitch + (x & ~1);
    return from_nv12(row[x], uv[0], uv[1]);
}

PCHMR_DEVICE float between(float a, float b, float share) { return a + share * (b - a); }
PCHMR_DEVICE Colour between(Colour a, Colour b, float share) {
    return {between(a.r, b.r, share), between(a.g, b.g, share), between(a.b, b.b, share)};
}

PCHMR_DEVICE Colour sample(const pchmr_cuda_crops &job, double x, double y) {
    const double far = 1 << 24;  // no frame goes so far; NaN is not below it either
    if (!(fabs(x) < far && fabs(y) < far)) return {0, 0, 0};
    const double left = floor(x), top = floor(y);
    const int x0 = (int)left, y0 = (int)top;
    const float across = x - left, down = y - top;
    return between(between(pixel(job, x0, y0), pixel(job, x0 + 1, y0), across),
                   between(pixel(job, x0, y0 + 1), pixel(job, x0 + 1, y0 + 1), across), down);
}

PCHMR_DEVICE uint8_t rounded(float x) { return (uint8_t)rintf(x); }

}  // namespace pchmr

// A thread makes four neighbouring pixels of a crop: three words. y of the grid: crops.
extern "C" __global__ void __launch_bounds__(PCHMR_CUDA_BLOCK) pchmr_crop(pchmr_cuda_crops job) {
    const int pixels = job.crop_height * job.crop_width;
    double m[6];
    for (int i = 0; i < 6; ++i) m[i] = pchmr::read(job.affines, 6 * (int64_t)blockIdx.y + i);
    for (int first = 4 * int(blockIdx.x * blockDim.x + threadIdx.x); first < pixels;
         first += 4 * int(gridDim.x * blockDim.x)) {
        uint8_t rgb[12];
        PCHMR_UNROLL
        for (int p = 0; p < 4; ++p) {
            const int x = (first + p) % job.crop_width, y = (first + p) / job.crop_width;
            const pchmr::Colour colour = pchmr::sample(job, m[0] * x + m[1] * y + m[2],
                                                       m[3] * x + m[4] * y + m[5]);
            rgb[3 * p] = pchmr::rounded(colour.r);
            rgb[3 * p + 1] = pchmr::rounded(colour.g);
            rgb[3 * p + 2] = pchmr::rounded(colour.b);
        }
        uint8_t *out = job.out + 3 * ((int64_t)blockIdx.y * pixels + first);
        if (first + 4 <= pixels && (unsigned long long)out % 4 == 0) {
            PCHMR_UNROLL
            for (int w = 0; w < 3; ++w)
                ((unsigned *)out)[w] = rgb[4 * w] | rgb[4 * w + 1] << 8 | rgb[4 * w + 2] << 16 |
                                       (unsigned)rgb[4 * w + 3] << 24;
        } else {
            PCHMR_UNROLL
            for (int i = 0; i < 12; ++i)
                if (i < 3 * (pixels - first)) out[i] = rgb[i];
        }
    }
}
