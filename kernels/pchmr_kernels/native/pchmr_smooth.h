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

/* One step of N filters, `seconds` after the last one: value, of the kind's shape, and velocity (N, D)
 * move towards `given`. The cutoff of each is least_hz + slope |velocity|, that of its velocity is
 * speed_hz. lag_ms: by how much the answer lags on a ramp, the mean over N by speed.
 * Returns 1, and changes nothing, where a number of `given` or of value is not finite. */
PCHMR_API int32_t pchmr_smooth_f64(int32_t kind, int64_t count, int32_t size, double seconds,
                                   double least_hz, double slope, double speed_hz,
                                   const double *given, double *value, double *velocity,
                                   double *lag_ms);

#ifdef __cplusplus
}
#endif

#endif
