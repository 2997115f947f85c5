// What a call that failed leaves to be read: the last message of each thread.
#ifndef PCHMR_ERRORS_H
#define PCHMR_ERRORS_H

#include <stdint.h>

#include <exception>
#include <string>

namespace pchmr {

int32_t fail(const std::string &message);  // 1

// Runs `work`, whose exceptions (no memory, no thread) must not cross the C ABI.
template <class Work>
int32_t guarded(Work work) {
    try {
        work();
        return 0;
    } catch (const std::exception &error) {
        return fail(error.what());
    }
}

}  // namespace pchmr

#endif
