/* The vertices of a mesh through shared memory: read and written in whole quads of 16 bytes, blended in
 * between in the order of their bones.
 */
#ifndef PCHMR_MESH_H
#define PCHMR_MESH_H

#include "bones.h"

namespace pchmr {

constexpr int kTile = PCHMR_CUDA_TILE;                // vertices
constexpr int kStage = 3 * kTile * sizeof(Real) + 16;  // bytes of a row's tile, wherever it starts

// A tile of rows of (V, 3) vertices. Vertices need not start on 16 bytes: `skew` elements come first.
template <class Mesh>
struct Tile {
    static constexpr int kLanes = 16 / sizeof(Mesh), kQuads = 3 * kTile / kLanes + 1;
    Mesh *first;     // of the first row's tile
    int64_t stride;  // elements from row to row
    int count;       // elements

    __device__ int skew(int row) const {
        return int((unsigned long long)(first + row * stride) / sizeof(Mesh) % kLanes);
    }
};

// Between global and shared memory; what is not wholly of the tile is moved by elements.
template <class Mesh>
PCHMR_DEVICE void copy_in(const Tile<Mesh> &from, int rows, char *staged) {
    const int n = from.kLanes;
    PCHMR_UNROLL
    for (int i = threadIdx.x; i < rows * from.kQuads; i += blockDim.x) {
        const int r = i / from.kQuads, q = i % from.kQuads, e = q * n - from.skew(r);
        const Mesh *source = from.first + r * from.stride + e;
        int4 *quad = (int4 *)(staged + r * kStage) + q;
        if (e >= 0 && e + n <= from.count) {
            *quad = *(const int4 *)source;
        } else {
            for (int l = 0; l < n; ++l)
                if (e + l >= 0 && e + l < from.count) ((Mesh *)quad)[l] = source[l];
        }
    }
}
template <class Mesh>
PCHMR_DEVICE void copy_out(const char *staged, const Tile<Mesh> &from, const Tile<Mesh> &to,
                           int rows) {
    const int n = to.kLanes;
    PCHMR_UNROLL
    for (int i = threadIdx.x; i < rows * to.kQuads; i += blockDim.x) {
        const int r = i / to.kQuads, e = i % to.kQuads * n - to.skew(r);
        const Mesh *quad = (const Mesh *)(staged + r * kStage) + from.skew(r) + e;
        Mesh *target = to.first + r * to.stride + e;
        if (e >= 0 && e + n <= to.count && from.skew(r) == to.skew(r)) {
            *(int4 *)target = *(const int4 *)quad;
        } else {
            for (int l = 0; l < n; ++l)
                if (e + l >= 0 && e + l < to.count) target[l] = quad[l];
        }
    }
}

// A vertex's row of sparse weights, Quads times four of them; Quads 0: of dense ones.
template <int Quads>
struct Row {
    int4 index[Quads];
    Quad value[Quads], offset[Quads];

    __device__ Row(const pchmr_weights &weights, int64_t j, bool stretch) {
        PCHMR_UNROLL
        for (int q = 0; q < Quads; ++q) {
            const int64_t i = j * Quads + q;
            index[q] = ((const int4 *)weights.indices)[i];
            value[q] = ((const Quad *)weights.values)[i];
            if (stretch) offset[q] = ((const Quad *)weights.offsets)[i];
        }
    }
    template <class Take>
    __device__ void each(Take take) const {
        PCHMR_UNROLL
        for (int q = 0; q < Quads; ++q) {
            take(index[q].x, value[q].x, offset[q].x);
            take(index[q].y, value[q].y, offset[q].y);
            take(index[q].z, value[q].z, offset[q].z);
            take(index[q].w, value[q].w, offset[q].w);
        }
    }
};
template <>
struct Row<0> {
    const Real *values, *offsets;
    int bones;

    __device__ Row(const pchmr_weights &weights, int64_t j, bool stretch)
        : values((const Real *)weights.values + j * weights.slots),
          offsets(stretch ? (const Real *)weights.offsets + j * weights.slots : values),
          bones(weights.slots) {}
    template <class Take>
    __device__ void each(Take take) const {
        for (int k = 0; k < bones; ++k) take(k, values[k], offsets[k]);
    }
};

template <>
struct Row<-1> {  // of nothing
    __device__ Row(const pchmr_weights &, int64_t, bool) {}
};

// Eq. (12-13), step 5: the transforms are blended first and applied once. `Stretch` adds the deltas.
template <int Stride, bool Stretch, int Quads>
PCHMR_DEVICE Quad blend(const Row<Quads> &weights, const Quad *records, Quad vertex) {
    Quad rows[3] = {}, moved = {};
    weights.each([&](int bone, Real value, Real offset) {
        const Quad *record = records + bone * Stride;
        for (int r = 0; r < 3; ++r) add(rows[r], record[r], value);
        if (Stretch) add(moved, record[3], offset);
    });
    moved.x += dot(rows[0], vertex) + rows[0].w;
    moved.y += dot(rows[1], vertex) + rows[1].w;
    moved.z += dot(rows[2], vertex) + rows[2].w;
    return moved;
}

// Blends this block's tiles of `rows` rows from `row`; with `Skin`, skins them first.
template <class Mesh, int Quads, bool Stretch, bool Skin>
PCHMR_DEVICE void blend_tiles(const pchmr_cuda_job &job, int64_t row, int rows, const Block &block) {
    const int64_t V = job.weights.vertices;
    for (int64_t first = (int64_t)blockIdx.x * kTile; first < V;
         first += (int64_t)gridDim.x * kTile) {
        const int count = V - first < kTile ? int(V - first) : kTile;
        const int64_t start = 3 * (row * V + first);
        const Tile<Mesh> from = {(Mesh *)job.vertices + start, 3 * V, 3 * count};
        const Tile<Mesh> to = {(Mesh *)job.out + start, 3 * V, 3 * count};
        copy_in(from, rows, block.vertices);
        __syncthreads();
        for (int i = threadIdx.x; i < count; i += blockDim.x) {
            const int place = job.places ? job.places[first + i] : i;
            const Row<Quads> weights(job.weights, first + i, Stretch);
            const Row<Skin ? Quads : -1> skin(job.skin, first + i, false);
            for (int r = 0; r < rows; ++r) {
                Mesh *own = (Mesh *)(block.vertices + r * kStage) + from.skew(r) + 3 * place;
                const Vec3 c = block.frames[r].centre;
                const Quad centre = {(Real)c.x, (Real)c.y, (Real)c.z, 0};
                Quad v = {widen(own[0]), widen(own[1]), widen(own[2]), 0};
                if constexpr (Skin)
                    v = blend<kSkinRecord, false>(
                        skin, block.skin + r * job.skin_bones * kSkinRecord, v);
                add(v, centre, -1);
                Quad moved = blend<kRecord, Stretch>(
                    weights, block.records + r * job.bones.bones * kRecord, v);
                add(moved, centre, 1);  // last: far from the camera this one rounding is all
                narrow(moved.x, own[0]), narrow(moved.y, own[1]), narrow(moved.z, own[2]);
            }
        }
        __syncthreads();
        copy_out(block.vertices, from, to, rows);
        __syncthreads();
    }
}

template <bool Stretch, bool Skin>
PCHMR_DEVICE void blend_mesh(const pchmr_cuda_job &job, int64_t row, int rows, const Block &block) {
    const int slots = job.weights.indices ? job.weights.slots : 0;
    if (slots == 4)
        job.half ? blend_tiles<Half, 1, Stretch, Skin>(job, row, rows, block)
                 : blend_tiles<Real, 1, Stretch, Skin>(job, row, rows, block);
    else if (slots == 8)
        job.half ? blend_tiles<Half, 2, Stretch, Skin>(job, row, rows, block)
                 : blend_tiles<Real, 2, Stretch, Skin>(job, row, rows, block);
    else
        job.half ? blend_tiles<Half, 0, Stretch, Skin>(job, row, rows, block)
                 : blend_tiles<Real, 0, Stretch, Skin>(job, row, rows, block);
}

}  // namespace pchmr

#endif
