// Shaded meshes over a picture: smooth normals, three lights, a depth buffer in tiles, 2 x 2
// samples a pixel. Corners are snapped to a grid and edges are tested in integers, so that
// triangles that share an edge leave no gap, and a tile depends on nothing but its triangles: the
// picture is the same for every number of threads.

#include "rasterize.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <thread>
#include <vector>

namespace {

constexpr int kPixels = 32;            // side of a tile
constexpr int kSamples = 2 * kPixels;  // side of a tile in samples
constexpr int kShift = 8;
constexpr int64_t kGrid = 1 << kShift;  // steps of the grid between two samples
constexpr float kFarthest = 1 << 21;    // samples from the origin; beyond, edges would overflow
constexpr float kHuge = 1e20f;          // squared; nothing of a body in metres
constexpr float kNear = 0.05f;          // metres; what is nearer to the camera is cut off

struct Vec {
    float x, y, z;
};

Vec operator+(Vec a, Vec b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
Vec operator-(Vec a, Vec b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
Vec operator*(float s, Vec a) { return {s * a.x, s * a.y, s * a.z}; }
float dot(Vec a, Vec b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
Vec cross(Vec a, Vec b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
bool is_number(Vec a) { return dot(a, a) < kHuge; }
Vec unit(Vec a) { return (1.0f / (std::sqrt(dot(a, a)) + 1e-20f)) * a; }

// A corner as the camera sees it; x and y in steps of the grid, colour as blue, green, red.
struct Corner {
    int64_t x, y;
    float inverse_depth;
    Vec color;
};
struct Triangle {
    int32_t corner[3];
};
struct Sample {
    float inverse_depth;
    uint32_t bgra;
};

// A key light over the left shoulder of the camera, a fill from the right, a rim from behind; sides
// that turn away from the camera darken, which tells a limb from the trunk behind it.
Vec shade(Vec normal, Vec position, Vec color) {
    static const Vec key = unit({-0.45f, -0.65f, -0.65f}), fill = unit({0.75f, -0.1f, -0.55f}),
                     rim = unit({0.35f, -0.45f, 0.8f});
    const Vec view = unit(-1.0f * position);
    const float facing = std::max(dot(normal, view), 0.0f);
    const float diffuse = 0.68f * std::max(dot(normal, key), 0.0f) +
                          0.26f * std::max(dot(normal, fill), 0.0f) +
                          0.30f * std::max(dot(normal, rim), 0.0f) + 0.07f * (1.0f - normal.y);
    float gloss = std::max(dot(normal, unit(key + view)), 0.0f);
    for (int i = 0; i < 4; ++i) gloss *= gloss;
    const float light = (0.30f + diffuse) * (0.60f + 0.40f * facing);
    const Vec lit = light * color + Vec{30.0f * gloss, 30.0f * gloss, 30.0f * gloss};
    return {std::min(lit.x, 255.0f), std::min(lit.y, 255.0f), std::min(lit.z, 255.0f)};
}

class Picture {
  public:
    Picture(uint8_t *pixels, int height, int width, int64_t stride, const float *camera,
            bool closed)
        : pixels_(pixels), height_(height), width_(width), stride_(stride), camera_(camera),
          closed_(closed), columns_((width + kPixels - 1) / kPixels),
          rows_((height + kPixels - 1) / kPixels) {}

    void add(const float *vertices, int count, const int32_t *faces, int face_count, Vec color) {
        const int first = static_cast<int>(corners_.size());
        std::vector<Vec> normals(count, Vec{0, 0, 0});
        const bool inside_out = find_normals(vertices, faces, face_count, normals);
        corners_.resize(first + count);
        for (int i = 0; i < count; ++i) {
            const Vec p = at(vertices, i);
            corners_[first + i] = project(p, shade(normals[i], p, color));
        }
        triangles_.reserve(triangles_.size() + face_count);
        for (int f = 0; f < face_count; ++f) {
            const int32_t *face = faces + 3 * static_cast<size_t>(f);
            Vec p[3];
            int in_front = 0;
            for (int i = 0; i < 3; ++i) {
                p[i] = at(vertices, face[i]);
                in_front += p[i].z >= kNear;
            }
            if (in_front == 3) {
                push({first + face[0], first + face[1], first + face[2]}, inside_out);
            } else if (in_front > 0) {
                Vec colors[3];
                for (int i = 0; i < 3; ++i) colors[i] = shade(normals[face[i]], p[i], color);
                push_clipped(p, colors, inside_out);
            }
        }
    }

    void draw(float alpha, int threads) {
        sort_into_tiles();
        std::atomic<int> next{0};
        const auto work = [&] {
            std::vector<Sample> samples(kSamples * kSamples);
            for (int i; (i = next++) < columns_ * rows_;) draw_tile(i, alpha, samples.data());
        };
        std::vector<std::thread> others;
        for (int i = 1; i < threads; ++i) others.emplace_back(work);
        work();
        for (std::thread &other : others) other.join();
    }

  private:
    // In samples, both ends included.
    struct Box {
        int left, top, right, bottom;
    };

    static Vec at(const float *vertices, int i) {
        const float *p = vertices + 3 * static_cast<size_t>(i);
        return {p[0], p[1], p[2]};
    }

    // Unit normals, weighted by area, that point out of the body; true if its faces wind inwards.
    static bool find_normals(const float *vertices, const int32_t *faces, int face_count,
                             std::vector<Vec> &normals) {
        double volume = 0;
        Vec origin = face_count ? at(vertices, faces[0]) : Vec{0, 0, 0};
        if (!is_number(origin)) origin = {0, 0, 0};
        for (int f = 0; f < face_count; ++f) {
            const int32_t *face = faces + 3 * static_cast<size_t>(f);
            const Vec a = at(vertices, face[0]);
            const Vec normal = cross(at(vertices, face[1]) - a, at(vertices, face[2]) - a);
            if (!is_number(normal)) continue;
            volume += dot(a - origin, normal);
            for (int i = 0; i < 3; ++i) normals[face[i]] = normals[face[i]] + normal;
        }
        for (Vec &normal : normals) normal = unit((volume < 0 ? -1.0f : 1.0f) * normal);
        return volume < 0;
    }

    // Pixel u has its samples at u - 1/4 and u + 1/4, which are 2u and 2u + 1.
    Corner project(Vec p, Vec color) const {
        const float inverse = 1.0f / p.z;
        const float x = 2.0f * (camera_[0] * p.x * inverse + camera_[2]) + 0.5f;
        const float y = 2.0f * (camera_[1] * p.y * inverse + camera_[3]) + 0.5f;
        const bool usable = std::fabs(x) < kFarthest && std::fabs(y) < kFarthest && p.z >= kNear;
        if (!usable)
            return {0, 0, 0.0f, color};  // an inverse depth of 0 marks it; so are NaNs caught
        return {std::llround(x * static_cast<float>(kGrid)),
                std::llround(y * static_cast<float>(kGrid)), inverse, color};
    }

    // The part of a triangle beyond the near plane: a fan of one or two triangles.
    void push_clipped(const Vec *p, const Vec *colors, bool inside_out) {
        int32_t fan[4], n = 0;
        const auto put = [&](Vec position, Vec color) {
            fan[n++] = static_cast<int32_t>(corners_.size());
            corners_.push_back(project(position, color));
        };
        for (int i = 0; i < 3; ++i) {
            const int j = (i + 1) % 3;
            if (p[i].z >= kNear) put(p[i], colors[i]);
            if ((p[i].z >= kNear) != (p[j].z >= kNear)) {
                const float t = (kNear - p[i].z) / (p[j].z - p[i].z);
                Vec cut = p[i] + t * (p[j] - p[i]);
                cut.z = kNear;
                put(cut, colors[i] + t * (colors[j] - colors[i]));
            }
        }
        for (int i = 2; i < n; ++i) push({fan[0], fan[i - 1], fan[i]}, inside_out);
    }

    // Keeps a triangle that may cover a sample. Of a closed body the far side is never seen.
    void push(Triangle triangle, bool inside_out) {
        for (const int32_t corner : triangle.corner)
            if (corners_[corner].inverse_depth <= 0.0f) return;
        const int64_t area = twice_area(triangle);
        if (area == 0 || (closed_ && (area > 0) != inside_out)) return;
        const Box box = samples_of(triangle);
        if (box.left <= box.right && box.top <= box.bottom) triangles_.push_back(triangle);
    }

    // Positive where the corners run clockwise as seen in the picture (y points down).
    int64_t twice_area(const Triangle &triangle) const {
        const Corner &a = corners_[triangle.corner[0]], &b = corners_[triangle.corner[1]],
                     &c = corners_[triangle.corner[2]];
        return (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
    }

    // The samples inside the picture that the triangle's bounding box holds.
    Box samples_of(const Triangle &triangle) const {
        const Corner &a = corners_[triangle.corner[0]], &b = corners_[triangle.corner[1]],
                     &c = corners_[triangle.corner[2]];
        const int64_t left = std::min({a.x, b.x, c.x}), right = std::max({a.x, b.x, c.x});
        const int64_t top = std::min({a.y, b.y, c.y}), bottom = std::max({a.y, b.y, c.y});
        // An arithmetic shift rounds down; adding kGrid - 1 first rounds up.
        return {static_cast<int>(std::max<int64_t>((left + kGrid - 1) >> kShift, 0)),
                static_cast<int>(std::max<int64_t>((top + kGrid - 1) >> kShift, 0)),
                static_cast<int>(std::min<int64_t>(right >> kShift, 2 * width_ - 1)),
                static_cast<int>(std::min<int64_t>(bottom >> kShift, 2 * height_ - 1))};
    }

    template <class Action>
    void for_tiles_of(const Triangle &triangle, Action action) const {
        const Box box = samples_of(triangle);
        for (int row = box.top / kSamples; row <= box.bottom / kSamples; ++row)
            for (int column = box.left / kSamples; column <= box.right / kSamples; ++column)
                action(row * columns_ + column);
    }

    void sort_into_tiles() {
        tile_start_.assign(columns_ * rows_ + 1, 0);
        for (const Triangle &triangle : triangles_)
            for_tiles_of(triangle, [&](int tile) { ++tile_start_[tile + 1]; });
        for (int i = 0; i < columns_ * rows_; ++i) tile_start_[i + 1] += tile_start_[i];
        tile_triangles_.resize(tile_start_.back());
        std::vector<int> next(tile_start_.begin(), tile_start_.end() - 1);
        for (size_t i = 0; i < triangles_.size(); ++i)
            for_tiles_of(triangles_[i],
                         [&](int tile) { tile_triangles_[next[tile]++] = static_cast<int>(i); });
    }

    void draw_tile(int tile, float alpha, Sample *samples) {
        if (tile_start_[tile] == tile_start_[tile + 1]) return;
        std::fill_n(samples, kSamples * kSamples, Sample{0.0f, 0});
        const int left = tile % columns_ * kSamples, top = tile / columns_ * kSamples;
        for (int i = tile_start_[tile]; i < tile_start_[tile + 1]; ++i)
            draw_triangle(triangles_[tile_triangles_[i]], left, top, samples);
        blend(left / 2, top / 2, alpha, samples);
    }

    void draw_triangle(const Triangle &triangle, int tile_left, int tile_top,
                       Sample *samples) const {
        const Corner *a = &corners_[triangle.corner[0]], *b = &corners_[triangle.corner[1]],
                     *c = &corners_[triangle.corner[2]];
        int64_t area = twice_area(triangle);
        if (area < 0) {
            std::swap(b, c);
            area = -area;
        }
        Box box = samples_of(triangle);
        box = {std::max(box.left, tile_left), std::max(box.top, tile_top),
               std::min(box.right, tile_left + kSamples - 1),
               std::min(box.bottom, tile_top + kSamples - 1)};
        // An edge's value at a sample is twice the area between them: >= 0 on the inner side.
        const auto edge = [&](const Corner &p, const Corner &q) {
            return (q.x - p.x) * (box.top * kGrid - p.y) - (q.y - p.y) * (box.left * kGrid - p.x);
        };
        int64_t row_a = edge(*b, *c), row_b = edge(*c, *a), row_c = edge(*a, *b);
        const int64_t right_a = (b->y - c->y) * kGrid, right_b = (c->y - a->y) * kGrid,
                      right_c = (a->y - b->y) * kGrid, down_a = (c->x - b->x) * kGrid,
                      down_b = (a->x - c->x) * kGrid, down_c = (b->x - a->x) * kGrid;
        const float share = 1.0f / static_cast<float>(area);
        for (int y = box.top; y <= box.bottom; ++y) {
            Sample *row = samples + (y - tile_top) * kSamples - tile_left;
            int64_t edge_a = row_a, edge_b = row_b, edge_c = row_c;
            for (int x = box.left; x <= box.right; ++x) {
                if ((edge_a | edge_b | edge_c) >= 0) {
                    // Weighted by inverse depth, shares in the picture are shares in space.
                    const float wa = share * static_cast<float>(edge_a) * a->inverse_depth,
                                wb = share * static_cast<float>(edge_b) * b->inverse_depth,
                                wc = share * static_cast<float>(edge_c) * c->inverse_depth;
                    const float inverse_depth = wa + wb + wc;
                    if (inverse_depth > row[x].inverse_depth) {
                        const Vec color = (1.0f / inverse_depth) *
                                          (wa * a->color + wb * b->color + wc * c->color);
                        row[x] = {inverse_depth, pack(color)};
                    }
                }
                edge_a += right_a;
                edge_b += right_b;
                edge_c += right_c;
            }
            row_a += down_a;
            row_b += down_b;
            row_c += down_c;
        }
    }

    static uint32_t pack(Vec color) {
        const auto byte = [](float value) { return static_cast<uint32_t>(value + 0.5f); };
        return byte(color.x) | byte(color.y) << 8 | byte(color.z) << 16 | 1u << 24;
    }

    // Each pixel becomes a mix of itself and its four samples.
    void blend(int left, int top, float alpha, const Sample *samples) const {
        const int right = std::min(left + kPixels, width_),
                  bottom = std::min(top + kPixels, height_);
        for (int y = top; y < bottom; ++y) {
            const Sample *upper = samples + 2 * (y - top) * kSamples;
            uint8_t *pixel = pixels_ + y * stride_ + 3 * left;
            for (int x = left; x < right; ++x, upper += 2, pixel += 3) {
                const uint32_t four[4] = {upper[0].bgra, upper[1].bgra, upper[kSamples].bgra,
                                          upper[kSamples + 1].bgra};
                const uint32_t covered =
                    (four[0] >> 24) + (four[1] >> 24) + (four[2] >> 24) + (four[3] >> 24);
                if (covered == 0) continue;
                const float keep = 1.0f - 0.25f * alpha * static_cast<float>(covered);
                for (int channel = 0; channel < 3; ++channel) {
                    uint32_t sum = 0;
                    for (const uint32_t sample : four) sum += sample >> (8 * channel) & 255;
                    pixel[channel] = static_cast<uint8_t>(
                        keep * pixel[channel] + 0.25f * alpha * static_cast<float>(sum) + 0.5f);
                }
            }
        }
    }

    uint8_t *pixels_;
    int height_, width_;
    int64_t stride_;
    const float *camera_;
    bool closed_;
    int columns_, rows_;
    std::vector<Corner> corners_;
    std::vector<Triangle> triangles_;
    std::vector<int> tile_start_, tile_triangles_;
};

}  // namespace

int32_t pchmr_draw_meshes(uint8_t *image, int32_t height, int32_t width, int64_t stride,
                          const float *vertices, int32_t persons, int32_t vertex_count,
                          const int32_t *faces, int32_t face_count, int32_t closed,
                          const float *camera, const float *colors, float alpha, int32_t threads) {
    try {
        Picture picture(image, height, width, stride, camera, closed != 0);
        for (int i = 0; i < persons; ++i)
            picture.add(vertices + 3 * static_cast<size_t>(i) * vertex_count, vertex_count, faces,
                        face_count, {colors[3 * i], colors[3 * i + 1], colors[3 * i + 2]});
        picture.draw(alpha, threads);
        return 0;
    } catch (const std::exception &) {
        return 1;
    }
}
