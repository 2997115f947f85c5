// Bilinear crops of a picture, as OpenCV's warpAffine has them. Compiled once an instruction set, as
// blend_rows.cpp is: plain loops over some columns at a time, which the compiler turns into vectors.
#include "crop_rows.h"

namespace {

constexpr int kColumns = 64;  // of the crop, worked on together
constexpr float kFar = 1e8f;  // outside any picture, and an integer holds it
constexpr int kAhead = 8;     // rows of it by which the picture is fetched before it is needed

typedef float Wide __attribute__((vector_size(4 * PCHMR_LANES), may_alias));
typedef int32_t WideInt __attribute__((vector_size(4 * PCHMR_LANES), may_alias));

struct alignas(64) Places {  // along x or y
    int32_t whole[kColumns];
    float left[kColumns];  // the share of the next pixel
};

// Two BGR pixels and two bytes of anything, as two words: from each place to the right, and below.
struct alignas(64) Pixels {
    uint32_t upper[kColumns][2], lower[kColumns][2];
};

// No further than from `low` to `high`, which are whole.
inline void find_places(float along, float from, int32_t begin, float low, float high,
                        Places *places) {
    const Wide lowest = Wide{} + low, highest = Wide{} + high;
    Wide column;
    for (int l = 0; l < PCHMR_LANES; ++l) column[l] = begin + l;
    for (int i = 0; i < kColumns; i += PCHMR_LANES, column += PCHMR_LANES) {
        Wide place = along * column + from;
        place = place < highest ? place : highest;  // and what is no number
        place = place > lowest ? place : lowest;
        WideInt whole = __builtin_convertvector(place, WideInt);  // towards zero
        whole += place < __builtin_convertvector(whole, Wide);    // -1 where that was up
        *(WideInt *)(places->whole + i) = whole;
        *(Wide *)(places->left + i) = place - __builtin_convertvector(whole, Wide);
    }
}

// Places lie on a line: those between two that are inside are, too.
inline bool inside(const Places &places, int32_t end) {
    const int32_t first = places.whole[0], last = places.whole[kColumns - 1];
    return first >= 0 && last >= 0 && first < end && last < end;
}

inline uint32_t pixel_or_black(const pchmr_crop &crop, int32_t x, int32_t y) {
    if (x < 0 || y < 0 || x >= crop.width || y >= crop.height) return 0;
    const uint8_t *at = crop.image + y * crop.pitch + 3 * x;
    return at[0] | at[1] << 8 | at[2] << 16;
}

inline void put(uint32_t left, uint32_t right, uint32_t *pixels) {
    pixels[0] = left | right << 24, pixels[1] = right >> 8;
}

// ahead: bytes to what is needed some rows later.
inline void fetch(const pchmr_crop &crop, const Places &x, const Places &y, int64_t ahead,
                  Pixels *pixels) {
    const int32_t width = crop.width, height = crop.height, pitch = crop.pitch;
    const bool all = crop.extend || (inside(x, width - 1) && inside(y, height - 1));
    const bool last = !inside(x, width - 2) && !inside(y, height - 3);  // up to 5 bytes too many
    if (all && !last) {
        alignas(64) int32_t upper[kColumns], lower[kColumns];
        for (int i = 0; i < kColumns; ++i) {
            upper[i] = y.whole[i] * pitch + 3 * x.whole[i];
            lower[i] = upper[i] + (y.whole[i] < height - 1 ? pitch : 0);
        }
        for (int i = 0; i < kColumns; i += 4) {
            __builtin_prefetch(crop.image + upper[i] + ahead);
            __builtin_prefetch(crop.image + lower[i] + ahead);
            for (int j = i; j < i + 4; ++j) {
                __builtin_memcpy(pixels->upper[j], crop.image + upper[j], 8);
                __builtin_memcpy(pixels->lower[j], crop.image + lower[j], 8);
            }
        }
        return;
    }
    for (int i = 0; i < kColumns; ++i) {
        const int32_t left = x.whole[i], top = y.whole[i];
        put(pixel_or_black(crop, left, top), pixel_or_black(crop, left + 1, top),
            pixels->upper[i]);
        put(pixel_or_black(crop, left, top + 1), pixel_or_black(crop, left + 1, top + 1),
            pixels->lower[i]);
    }
}

// A colour of the four pixels, mixed, in the lowest byte: a float above 2^23 is a whole number.
inline uint32_t mix(uint32_t left, uint32_t right, uint32_t left_below, uint32_t right_below,
                    float across, float down) {
    const int32_t a = left & 255, b = right & 255, c = left_below & 255, d = right_below & 255;
    const float above = a + across * (b - a), below = c + across * (d - c);
    union {
        float rounded;
        uint32_t bits;
    } mixed;
    mixed.rounded = above + down * (below - above) + 12582912.0f;
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
    const float low = crop.extend ? 0 : -kFar;
    const float right = crop.extend ? crop.width - 1 : kFar;
    const float bottom = crop.extend ? crop.height - 1 : kFar;
    uint8_t *out = crop.out + (int64_t)row * crop.size * 3;
    for (int32_t begin = 0; begin < crop.size; begin += kColumns) {
        const int count = crop.size - begin < kColumns ? crop.size - begin : kColumns;
        Places x, y;
        Pixels p;
        alignas(64) uint32_t rgb[kColumns];
        find_places(affine[0], from_x, begin, low, right, &x);
        find_places(affine[3], from_y, begin, low, bottom, &y);
        fetch(crop, x, y, ahead, &p);
        for (int i = 0; i < kColumns; ++i) {
            const uint32_t *u = p.upper[i], *l = p.lower[i];
            const float across = x.left[i], down = y.left[i];
            const uint32_t blue = mix(u[0], u[0] >> 24, l[0], l[0] >> 24, across, down);
            const uint32_t green = mix(u[0] >> 8, u[1], l[0] >> 8, l[1], across, down);
            const uint32_t red = mix(u[0] >> 16, u[1] >> 8, l[0] >> 16, l[1] >> 8, across, down);
            rgb[i] = red | green << 8 | blue << 16;
        }
        for (int i = 0; i < count - 1; ++i) __builtin_memcpy(out + 3 * (begin + i), rgb + i, 4);
        __builtin_memcpy(out + 3 * (begin + count - 1), rgb + count - 1, 3);
    }
}

}  // namespace

#define PCHMR_JOIN(a, b) a##b
#define PCHMR_NAME(isa) PCHMR_JOIN(pchmr_crop_rows_, isa)

void PCHMR_NAME(PCHMR_ISA)(const pchmr_crop &crop, int32_t begin, int32_t end) {
    const auto later = [](double step, int32_t size) {  // 0 where that is outside, or no number
        const double place = kAhead * step;
        return place > -size && place < size ? (int64_t)place : 0;
    };
    const int64_t ahead =
        later(crop.affine[4], crop.height) * crop.pitch + later(crop.affine[1], crop.width) * 3;
    for (int32_t row = begin; row < end; ++row) crop_row(crop, row, ahead);
}
