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

// One cycle. Every change of the clock is an edge (simulator.py), so that only new inputs need another evaluation.
void cycle(VerilatedContext& context, Vchip& chip) {
    const bool offered = taken < in.size();
    const uint8_t payload = offered ? in[taken] : 0;
    if (chip.rx___05Fvalid != offered || chip.rx___05Fpayload != payload) {
        chip.rx___05Fvalid = offered;
        chip.rx___05Fpayload = payload;
        chip.eval();
    }
    if (offered && chip.rx___05Fready) ++taken;
    if (chip.tx___05Fvalid) out.push_back(chip.tx___05Fpayload);
    chip.clk = !chip.clk;
    chip.eval();
    context.timeInc(1);
}
}  // namespace

int main(int argc, char** argv) {
    VerilatedContext context;
    context.commandArgs(argc, argv);
    Vchip chip{&context};
    chip.tx___05Fready = 1;
    chip.rst = 1;
    chip.eval();
    for (int i = 0; i < 4; ++i) cycle(context, chip);
    chip.rst = 0;
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
