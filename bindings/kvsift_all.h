/* Everything the bindings are generated from. */
#include <kvsift/kvsift.h>
#include <kvsift/balance.h>
#include <kvsift/store.h>
