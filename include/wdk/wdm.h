/* The name under which driver sources include the kernel's declarations, as far as kmcl knows them. */
#include <kmcl/wdk.h>
