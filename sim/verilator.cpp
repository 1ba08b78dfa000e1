// Runs the generated chip as fast as Verilator can, speaking the link's bytes on stdin and stdout.
// While nothing is computed and nothing arrives, it waits in poll() instead of burning cycles.
#include <poll.h>
#include <unistd.h>

#include <cstdint>
#include <vector>

#include "Vchip.h"
#include "verilated.h"

namespace {
constexpr int kBatch = 64;      // cycles between looks at stdin while bytes flow
constexpr int kComputing = 4096;  // the same while the core is busy
constexpr int kSettle = 4096;   // idle cycles until everything in flight has left the link

std::vector<uint8_t> in, out;
size_t taken = 0;

// False at end of file.
bool receive(int timeout_ms) {
    pollfd descriptor{0, POLLIN, 0};
    if (poll(&descriptor, 1, timeout_ms) <= 0) return true;
    uint8_t buffer[65536];
    ssize_t count = read(0, buffer, sizeof buffer);
    if (count <= 0) return false;
    in.erase(in.begin(), in.begin() + taken);
    taken = 0;
    in.insert(in.end(), buffer, buffer + count);
    return true;
}

bool flush() {
    for (size_t sent = 0; sent < out.size();) {
        ssize_t count = write(1, out.data() + sent, out.size() - sent);
        if (count <= 0) return false;
        sent += count;
    }
    out.clear();
    return true;
}

// One cycle. Every change of the clock is an edge, and inputs are those of the next cycle (simulator.py).
void cycle(VerilatedContext& context, Vchip& chip) {
    if (chip.rx_valid && chip.rx_ready) ++taken;
    if (chip.tx_valid) out.push_back(chip.tx_payload);
    chip.rx_valid = taken < in.size();
    chip.rx_payload = chip.rx_valid ? in[taken] : 0;
    chip.clk = !chip.clk;
    chip.eval();
    context.timeInc(1);
}
}  // namespace

int main(int argc, char** argv) {
    VerilatedContext context;
    context.commandArgs(argc, argv);
    Vchip chip{&context};
    chip.tx_ready = 1;
    chip.eval();
    int quiet = 0;
    for (;;) {
        if (!receive(quiet > kSettle ? -1 : 0)) return 0;
        if (quiet > kSettle) quiet = 0;
        int count = chip.busy && taken == in.size() ? kComputing : kBatch;
        for (int i = 0; i < count; ++i) cycle(context, chip);
        quiet = chip.busy || taken < in.size() || !out.empty() ? 0 : quiet + count;
        if (!out.empty() && !flush()) return 0;
    }
}
