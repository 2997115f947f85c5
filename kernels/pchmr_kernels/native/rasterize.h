/* Drawing of shaded meshes over a picture; part of the C ABI of the native library. */
#ifndef PCHMR_RASTERIZE_H
#define PCHMR_RASTERIZE_H

#include "pchmr_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Draws meshes of one topology, the nearer over the farther, into a picture. Returns 0, or 1 when
 * memory runs out.
 *
 * image: (height, width, 3) bytes, BGR, rows `stride` bytes apart. vertices: (persons,
 * vertex_count, 3), metres, camera frame (x right, y down, z away). faces: (face_count, 3), each
 * below vertex_count: not checked here. closed: 1 if the faces close around a body, whose far side
 * is then left out. camera: fx, fy, cx, cy in pixels; pixel (0, 0) is the centre of the first.
 * colors: (persons, 3), blue, green, red, 0 to 255. alpha: 0 transparent to 1 opaque.
 *
 * What lies behind the camera or within 5 cm of it is cut off. A corner that is not finite takes
 * its triangles with it. The picture does not depend on the number of threads. */
PCHMR_API int32_t pchmr_draw_meshes(uint8_t *image, int32_t height, int32_t width, int64_t stride,
                                    const float *vertices, int32_t persons, int32_t vertex_count,
                                    const int32_t *faces, int32_t face_count, int32_t closed,
                                    const float *camera, const float *colors, float alpha,
                                    int32_t threads);

#ifdef __cplusplus
}
#endif

#endif
