/* The name under which driver sources include the words that kernel sources are spelled in. */
#include <kmcl/nt.h>
