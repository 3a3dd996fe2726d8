/* What the check of symbols must catch: a name that is not ours, and one of ours that a shared library would not show. */
int kvsift_planted_good(void);
int planted_global(void);
__attribute__((visibility("hidden"))) int kvsift_planted_hidden(void);

int kvsift_planted_good(void) { return 1; }
int planted_global(void) { return 2; }
int kvsift_planted_hidden(void) { return 3; }
