// Bilinear crops of a picture, as OpenCV's warpAffine has them. Compiled once an instruction set, as
// blend_rows.cpp is: plain loops over some columns at a time, which the compiler turns into vectors.
#include "crop_rows.h"

namespace {

constexpr int kColumns = 64;  // of the crop, worked on together
constexpr int kAhead = 3;     // rows of it by which the picture is fetched before it is needed

typedef float Wide __attribute__((vector_size(4 * PCHMR_LANES), may_alias));
typedef int32_t WideInt __attribute__((vector_size(4 * PCHMR_LANES), may_alias));

struct alignas(64) Places {  // along x or y
    int32_t whole[kColumns];
    float left[kColumns];  // the share of the next pixel
};

// Two BGR pixels in each word and two bytes of anything: those from each place to the right, and
// those below.
struct alignas(64) Pixels {
    uint64_t upper[kColumns], lower[kColumns];
};

// Far outside the picture it does not matter where; an integer must hold it.
inline void find_places(float along, float from, int32_t begin, Places *places) {
    const Wide limit = Wide{} + 1e8f;
    Wide column;
    for (int l = 0; l < PCHMR_LANES; ++l) column[l] = begin + l;
    for (int i = 0; i < kColumns; i += PCHMR_LANES, column += PCHMR_LANES) {
        Wide place = along * column + from;
        place = place < limit ? place : limit;
        place = place > -limit ? place : -limit;
        WideInt whole = __builtin_convertvector(place, WideInt);  // towards zero
        whole += place < __builtin_convertvector(whole, Wide);    // -1 where that was up
        *(WideInt *)(places->whole + i) = whole;
        *(Wide *)(places->left + i) = place - __builtin_convertvector(whole, Wide);
    }
}

inline uint64_t two_pixels(const uint8_t *at) {
    uint64_t pixels;
    __builtin_memcpy(&pixels, at, 8);
    return pixels;
}

inline uint64_t pixel_or_edge(const pchmr_crop &crop, int32_t x, int32_t y) {
    const bool inside = x >= 0 && y >= 0 && x < crop.width && y < crop.height;
    if (!inside && !crop.extend) return 0;
    x = x < 0 ? 0 : x < crop.width ? x : crop.width - 1;
    y = y < 0 ? 0 : y < crop.height ? y : crop.height - 1;
    const uint8_t *at = crop.image + y * crop.pitch + 3 * x;
    return at[0] | at[1] << 8 | at[2] << 16;
}

// Whether two pixels and two bytes more can be read there, and below.
inline bool readable(const pchmr_crop &crop, int32_t x, int32_t y) {
    return x >= 0 && x < crop.width - 2 && y >= 0 && y < crop.height - 2;
}

inline void fetch(const pchmr_crop &crop, const Places &x, const Places &y, int64_t ahead, int count,
                  Pixels *pixels) {
    const uint8_t *image = crop.image;
    const int64_t pitch = crop.pitch;
    // Places lie on a line: those between two that can be read can be, too.
    if (readable(crop, x.whole[0], y.whole[0]) &&
        readable(crop, x.whole[kColumns - 1], y.whole[kColumns - 1])) {
        alignas(64) int32_t offsets[kColumns];
        for (int i = 0; i < kColumns; ++i)
            offsets[i] = y.whole[i] * (int32_t)pitch + 3 * x.whole[i];
        for (int i = 0; i < kColumns; i += 4) {
            __builtin_prefetch(image + offsets[i] + ahead);
            __builtin_prefetch(image + offsets[i] + ahead + pitch);
            for (int j = i; j < i + 4; ++j) {
                pixels->upper[j] = two_pixels(image + offsets[j]);
                pixels->lower[j] = two_pixels(image + offsets[j] + pitch);
            }
        }
        return;
    }
    for (int i = 0; i < count; ++i) {
        const int32_t left = x.whole[i], top = y.whole[i];
        pixels->upper[i] =
            pixel_or_edge(crop, left, top) | pixel_or_edge(crop, left + 1, top) << 24;
        pixels->lower[i] =
            pixel_or_edge(crop, left, top + 1) | pixel_or_edge(crop, left + 1, top + 1) << 24;
    }
}

// A colour of the four pixels, mixed, in the lowest byte: a float above 2^23 is a whole number.
inline uint32_t mix(uint64_t upper, uint64_t lower, int shift, float right, float below) {
    const float a = (int32_t)((uint32_t)upper >> shift & 255);
    const float b = (int32_t)((uint32_t)(upper >> 24) >> shift & 255);
    const float c = (int32_t)((uint32_t)lower >> shift & 255);
    const float d = (int32_t)((uint32_t)(lower >> 24) >> shift & 255);
    const float above = a + right * (b - a), under = c + right * (d - c);
    union {
        float rounded;
        uint32_t bits;
    } mixed;
    mixed.rounded = above + below * (under - above) + 12582912.0f;
    return mixed.bits & 255;
}

// Where a row begins, rounded as OpenCV rounds: the product of two floats first, which a double holds.
inline float begin_of(int32_t row, float step, float first) {
    return (float)((double)row * step) + first;
}

void crop_row(const pchmr_crop &crop, int32_t row, int64_t ahead) {
    const double *affine = crop.affine;
    const float from_x = begin_of(row, affine[1], affine[2]);
    const float from_y = begin_of(row, affine[4], affine[5]);
    uint8_t *out = crop.out + (int64_t)row * crop.size * 3;
    for (int32_t begin = 0; begin < crop.size; begin += kColumns) {
        const int count = crop.size - begin < kColumns ? crop.size - begin : kColumns;
        Places x, y;
        Pixels p;
        alignas(64) uint32_t rgb[kColumns];
        find_places(affine[0], from_x, begin, &x);
        find_places(affine[3], from_y, begin, &y);
        fetch(crop, x, y, ahead, count, &p);
        for (int i = 0; i < kColumns; ++i) {
            uint32_t mixed[3];
            for (int c = 0; c < 3; ++c)
                mixed[c] = mix(p.upper[i], p.lower[i], 8 * c, x.left[i], y.left[i]);
            rgb[i] = mixed[2] | mixed[1] << 8 | mixed[0] << 16;
        }
        for (int i = 0; i < count - 1; ++i) __builtin_memcpy(out + 3 * (begin + i), rgb + i, 4);
        __builtin_memcpy(out + 3 * (begin + count - 1), rgb + count - 1, 3);
    }
}

}  // namespace

#define PCHMR_JOIN(a, b) a##b
#define PCHMR_NAME(isa) PCHMR_JOIN(pchmr_crop_rows_, isa)

void PCHMR_NAME(PCHMR_ISA)(const pchmr_crop &crop, int32_t begin, int32_t end) {
    const int64_t ahead = (int64_t)(kAhead * crop.affine[4]) * crop.pitch +
                          (int64_t)(kAhead * crop.affine[1]) * 3;
    for (int32_t row = begin; row < end; ++row) crop_row(crop, row, ahead);
}
