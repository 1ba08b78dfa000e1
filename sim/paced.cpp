// Runs the generated chip in its own time: bytes take as long as on a UART's wire, and cycles pass only while the host
// waits for an answer, so that a host of any speed sees the same chip.
//
//   stdin:  'W' u32 count, bytes       these leave the host now
//           'R' u64 cycles             let so many pass, fewer if a byte arrives
//   stdout: u64 cycle, u32 count, bytes    answers an 'R': the time, and what has arrived
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>

#include "Vchip.h"
#include "verilated.h"

namespace {
struct Byte {
    uint64_t when;  // fully received
    uint8_t value;
};

std::deque<Byte> in, out;
uint64_t now = 0, sent = 0, answered = 0;  // until when either wire is busy

bool exactly(void* data, size_t count) {
    for (auto* place = static_cast<uint8_t*>(data); count;) {
        ssize_t got = read(0, place, count);
        if (got <= 0) return false;
        place += got;
        count -= got;
    }
    return true;
}

bool put(const void* data, size_t count) {
    for (auto* place = static_cast<const uint8_t*>(data); count;) {
        ssize_t done = write(1, place, count);
        if (done <= 0) return false;
        place += done;
        count -= done;
    }
    return true;
}

void cycle(VerilatedContext& context, Vchip& chip, uint64_t byte) {
    if (chip.rx_valid && chip.rx_ready) in.pop_front();
    if (chip.tx_ready && chip.tx_valid) {
        answered = now + byte;
        out.push_back({answered, static_cast<uint8_t>(chip.tx_payload)});
    }
    ++now;  // inputs are those of the next cycle, and every change of the clock is an edge: simulator.py
    chip.rx_valid = !in.empty() && in.front().when <= now;
    chip.rx_payload = chip.rx_valid ? in.front().value : 0;
    chip.tx_ready = answered <= now;
    chip.clk = !chip.clk;
    chip.eval();
    context.timeInc(1);
}
}  // namespace

int main(int argc, char** argv) {
    uint64_t byte = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 0;  // cycles that a byte takes
    VerilatedContext context;
    Vchip chip{&context};
    chip.eval();
    for (char kind; exactly(&kind, 1);) {
        if (kind == 'W') {
            uint32_t count;
            if (!exactly(&count, 4)) return 0;
            for (uint8_t value; count--; in.push_back({sent, value})) {
                if (!exactly(&value, 1)) return 0;
                sent = (sent > now ? sent : now) + byte;
            }
            continue;
        }
        uint64_t cycles;
        if (!exactly(&cycles, 8)) return 0;
        for (uint64_t end = now + cycles; now < end && (out.empty() || out.front().when > now);)
            cycle(context, chip, byte);
        uint32_t count = !out.empty() && out.front().when <= now;
        if (!put(&now, 8) || !put(&count, 4) || (count && !put(&out.front().value, 1))) return 0;
        if (count) out.pop_front();
    }
}
