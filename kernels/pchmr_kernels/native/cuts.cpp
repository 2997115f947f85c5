#include "pchmr_cuts.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int64_t kChunk = 32768;  // products of bytes that an int32_t sums

// (3, rows * columns) from a picture of which each point lies in a cache line of its own, far away:
// all are asked for before the first is needed.
void gather(const uint8_t *image, int64_t row, int64_t column, int64_t colour, int64_t rows,
            int64_t columns, uint8_t *points) {
    const int64_t count = rows * columns;
    for (int64_t y = 0; y < rows; ++y)
        for (int64_t x = 0; x < columns; ++x) __builtin_prefetch(image + y * row + x * column);
    for (int64_t y = 0; y < rows; ++y) {
        for (int64_t x = 0; x < columns; ++x, ++points) {
            const uint8_t *at = image + y * row + x * column;
            points[0] = at[0], points[count] = at[colour], points[2 * count] = at[2 * colour];
        }
    }
}

struct Moments {
    int64_t a = 0, b = 0, aa = 0, ab = 0, bb = 0;
};

Moments moments(const uint8_t *a, const uint8_t *b, int64_t count) {
    Moments all;
    for (int64_t begin = 0; begin < count; begin += kChunk) {
        const int64_t end = count - begin < kChunk ? count : begin + kChunk;
        int32_t sa = 0, sb = 0, saa = 0, sab = 0, sbb = 0;
        for (int64_t i = begin; i < end; ++i) {
            sa += a[i], sb += b[i];
            saa += a[i] * a[i], sab += a[i] * b[i], sbb += b[i] * b[i];
        }
        all.a += sa, all.b += sb, all.aa += saa, all.ab += sab, all.bb += sbb;
    }
    return all;
}

// By the covariances times the square of `count`: whole numbers, which fit up to 10^7 points.
bool is_alike(const uint8_t *a, const uint8_t *b, int64_t count, double alike) {
    double aa = 0, ab = 0, bb = 0;
    for (int c = 0; c < 3; ++c, a += count, b += count) {
        const Moments m = moments(a, b, count);
        aa += double(count * m.aa - m.a * m.a);
        ab += double(count * m.ab - m.a * m.b);
        bb += double(count * m.bb - m.b * m.b);
    }
    return ab > alike * std::sqrt(aa) * std::sqrt(bb);
}

// Of the points of both, by how many each sixteenth of a colour's range has more in one of them.
int64_t changed_colours(const uint8_t *a, const uint8_t *b, int64_t count) {
    int64_t changed = 0;
    for (int c = 0; c < 3; ++c, a += count, b += count) {
        int64_t more[16] = {};
        for (int64_t i = 0; i < count; ++i) ++more[a[i] >> 4], --more[b[i] >> 4];
        for (int64_t sixteenth : more) changed += std::abs(sixteenth);
    }
    return changed;
}

}  // namespace

int32_t pchmr_cut_u8(const uint8_t *image, int64_t row_bytes, int64_t column_bytes,
                     int64_t colour_bytes, int64_t step, int64_t rows, int64_t columns,
                     double alike, double recoloured, uint8_t *points) {
    const int64_t count = rows * columns;
    uint8_t *before = points, *now = points + 3 * count;
    gather(image + step / 2 * (row_bytes + column_bytes), step * row_bytes, step * column_bytes,
           colour_bytes, rows, columns, now);
    const bool cut = !is_alike(now, before, count, alike) &&
                     changed_colours(now, before, count) > recoloured * 6 * count;
    std::memcpy(before, now, 3 * count);
    return cut;
}
