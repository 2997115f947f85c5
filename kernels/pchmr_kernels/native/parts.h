// Work shared out to threads.
#ifndef PCHMR_PARTS_H
#define PCHMR_PARTS_H

#include <stdint.h>

#include <system_error>
#include <thread>
#include <vector>

namespace pchmr {

// Calls work(begin, end) over 0..total, at most `threads` at once, each with at least `least` or so.
template <class Work>
void in_parts(int64_t total, int64_t least, int32_t threads, Work work) {
    int64_t parts = total / least + 1;
    if (parts > threads) parts = threads > 1 ? threads : 1;
    const auto part = [&](int64_t i) { work(total * i / parts, total * (i + 1) / parts); };
    std::vector<std::thread> others;
    others.reserve(parts);
    for (int64_t i = 1; i < parts; ++i) {
        try {
            others.emplace_back(part, i);
        } catch (const std::system_error &) {  // no thread to be had
            part(i);
        }
    }
    part(0);
    for (std::thread &other : others) other.join();
}

}  // namespace pchmr

#endif
