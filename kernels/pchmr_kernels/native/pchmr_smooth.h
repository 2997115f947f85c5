/* One-euro filters (Casiez et al. 2012); part of the C ABI of the native library. */
#ifndef PCHMR_SMOOTH_H
#define PCHMR_SMOOTH_H

#include "pchmr_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PCHMR_SMOOTH_POINTS 0     /* (N, D) */
#define PCHMR_SMOOTH_DIRECTIONS 1 /* (N, D) of length 1 */
#define PCHMR_SMOOTH_ROTATIONS 2  /* (N, 3, 3), along the shortest turn; D is 3 */

/* N filters of one kind, and what they know. The cutoff of each is least_hz + slope |velocity|, that of
 * its velocity is speed_hz. */
typedef struct {
    int32_t kind, size; /* size: D */
    int64_t count;      /* N */
    double least_hz, slope, speed_hz;
    double *value;    /* of the kind's shape: the last answer; NaN at first */
    double *velocity; /* (N, D) */
    int64_t t_ns;     /* of the last answer; the next comes 1 ms later at least */
    double lag_ms;    /* by how much it lags on a ramp, the mean over N by speed */
} pchmr_filter;

/* Smooths `values`, of the filter's shape and the time t_ns (1), in place. Where a number of them or of
 * the last answer is not finite the filter begins anew, and they stay as they are. */
PCHMR_API void pchmr_smooth_f64(pchmr_filter *filter, const int64_t *t_ns, double *values);
PCHMR_API void pchmr_smooth_f32(pchmr_filter *filter, const int64_t *t_ns, float *values);

/* Smooths place (3) by filters of points: one of (x/z, y/z), one of z. It stays where z is not above 0. */
PCHMR_API void pchmr_smooth_place_f64(pchmr_filter *seen, pchmr_filter *depth,
                                      const int64_t *t_ns, double *place);

/* Smooths joints (N + 1, 3) by filters of N directions and of N points, the lengths, of bones; the root
 * stays where it is, and all do where a number is not finite. pairs: (N, 2) parent, child, each after the
 * bone that ends in its parent. room: (N, 4), to work in. */
PCHMR_API void pchmr_smooth_bones_f64(pchmr_filter *directions, pchmr_filter *lengths,
                                      const int32_t *pairs, double *room,
                                      const int64_t *t_ns, double *joints);

#ifdef __cplusplus
}
#endif

#endif
