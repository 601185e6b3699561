/* The name under which driver sources include the annotations. */
#include <kmcl/nt.h>
