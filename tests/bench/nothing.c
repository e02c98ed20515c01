/* The smallest program: what `execs` starts. */
int main(void)
{
    return 0;
}
