//! tmp
#[path = "payments/shop.rs"]
mod shop;
use shop::*;
use stampede_testkit::Service;
#[tokio::test]
async fn speed() -> anyhow::Result<()> {
    let shop = Shop::open().await?;
    println!("ADMIN {}", shop.mesh.admin_url(Service::Payment));
    for round in 0..3 {
    let orders: Vec<_> = (0..3000).map(|_| Order::new()).collect();
    let t = std::time::Instant::now();
    futures_util::future::try_join_all(orders.iter().map(|o| shop.pay(o, 1, "pm_card_ok"))).await?;
    println!("round {round} told {:?}", t.elapsed());
    let t = std::time::Instant::now();
    let mut last = (0,0,0);
    loop {
        let n = shop.count().await?;
        if (n.0/500, n.1/500, n.2/500) != (last.0/500, last.1/500, last.2/500) { println!("{:?} requested {} charging {} captured {}", t.elapsed(), n.0, n.1, n.2); last = n; }
        if n.2 >= 3000 * (round + 1) { break; }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    println!("captured after {:?}", t.elapsed());
    let url = shop.mesh.admin_url(Service::Payment);
    let out = std::process::Command::new("curl").args(["-s", &format!("{url}/metrics")]).output()?;
    for l in String::from_utf8_lossy(&out.stdout).lines().filter(|l| l.contains("transaction_duration_seconds_sum") || l.contains("transaction_duration_seconds_count")) { println!("{l}"); }
    }
    Ok(())
}
