/* Cuts from one picture of a video to another; part of the C ABI of the native library. */
#ifndef PCHMR_CUTS_H
#define PCHMR_CUTS_H

#include "pchmr_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* 1 where a frame is another picture than the one before: its points correlate with that one's no
 * more than `alike`, and more than the share `recoloured` of them changed its sixteenth of a
 * colour's range. A picture of one colour correlates with none. 0 where there are no points.
 *
 * image: the frame's first value, whose rows, columns and three colours are so many bytes apart.
 * Its points: (rows, columns), each in the middle of a square of `step` pixels to a side, the
 * first square at the first pixel. points: (2, 3, rows * columns), first those of the frame
 * before, then room; both are this one's afterwards. */
PCHMR_API int32_t pchmr_cut_u8(const uint8_t *image, int64_t row_bytes, int64_t column_bytes,
                               int64_t colour_bytes, int64_t step, int64_t rows, int64_t columns,
                               double alike, double recoloured, uint8_t *points);

#ifdef __cplusplus
}
#endif

#endif
