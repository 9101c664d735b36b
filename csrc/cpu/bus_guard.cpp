#include "cpu/bus_guard.h"

#include <setjmp.h>
#include <signal.h>

#include <atomic>
#include <cerrno>
#include <mutex>
#include <system_error>

// A handler may not allocate, which the first use of an ordinary thread_local of a loaded library does with
// glibc.  Others (musl) allocate with the thread, and refuse this model.
#if defined(__GLIBC__)
#define HEPFEED_STATIC_TLS __attribute__((tls_model("initial-exec")))
#else
#define HEPFEED_STATIC_TLS
#endif

namespace hepfeed {
namespace {

std::mutex installing;
std::atomic<bool> installed{false};
struct sigaction previous;  // written once, before the handler that reads it is there

// Where this thread goes on after a bus error; null outside of guarded work.
HEPFEED_STATIC_TLS thread_local sigjmp_buf* volatile way_out = nullptr;

void pass_on(int signal, siginfo_t* info, void* context) {
  const bool sent = info->si_code <= 0;  // by kill() and the like: nothing repeats it after the return
  if (previous.sa_flags & SA_SIGINFO) return previous.sa_sigaction(signal, info, context);
  if (previous.sa_handler == SIG_IGN && sent) return;
  if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) return previous.sa_handler(signal);
  sigaction(signal, &previous, nullptr);  // a fault happens again on return, and ends the process
  if (sent) raise(signal);
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  if (way_out && info->si_code > 0) siglongjmp(*way_out, 1);
  const int error = errno;
  pass_on(signal, info, context);
  errno = error;
}

void run_guarded(Piece piece, void* context, size_t count, uint8_t* faults) {
  sigjmp_buf here;
  volatile size_t i = 0;
  // The mask need not be saved: SA_NODEFER leaves SIGBUS unblocked in the handler.
  if (sigsetjmp(here, 0)) {
    faults[i] = static_cast<uint8_t>(Fault::unreadable);
    i = i + 1;
  }
  way_out = &here;
  for (; i < count; i = i + 1) faults[i] = static_cast<uint8_t>(piece(context, i));
  way_out = nullptr;
}

}  // namespace

void guard_bus_errors() {
  const std::lock_guard<std::mutex> lock(installing);
  if (installed) return;
  struct sigaction action{};
  // On the alternate stack, as handlers that report a crash ask for: one of them may be called from here.
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  action.sa_sigaction = on_bus_error;
  sigemptyset(&action.sa_mask);
  if (sigaction(SIGBUS, nullptr, &previous) || sigaction(SIGBUS, &action, nullptr))
    throw std::system_error(errno, std::generic_category(), "the handler of SIGBUS could not be installed");
  installed = true;
}

bool bus_errors_guarded() { return installed; }

void run_pieces(Piece piece, void* context, size_t count, bool guarded, uint8_t* faults) {
  if (guarded) return run_guarded(piece, context, count, faults);
  for (size_t i = 0; i < count; ++i) faults[i] = static_cast<uint8_t>(piece(context, i));
}

}  // namespace hepfeed
